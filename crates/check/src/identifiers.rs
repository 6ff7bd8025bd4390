//! The form of the tables [`crate::Check`] and [`crate::Cause`]: an enum with a row for each variant. A row has the variant,
//! the stable ID that users and programs see, what the table adds, a description, and a source.

/// Declares a table. `$added` is the type of what the table adds, and `$from` are the enums whose variants it names.
macro_rules! identifiers {
    (
        $(#[$doc:meta])* $table:ident: $added:ty; use $($from:ident),+;
        $($name:ident $id:literal $value:tt $about:literal $source:literal;)*
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $table {
            $(#[doc = $about] $name,)*
        }

        impl $table {
            /// All rows, in the order of the table.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            fn row(self) -> (&'static str, &'static $added, &'static str, &'static str) {
                $(use $from::*;)+
                match self { $(Self::$name => ($id, &$value, $about, $source)),* }
            }

            /// The stable ID, as in output and JSON.
            pub fn id(self) -> &'static str {
                self.row().0
            }

            /// The description, in a few words.
            pub fn about(self) -> &'static str {
                self.row().2
            }
        }

        impl std::fmt::Display for $table {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.id())
            }
        }

        impl serde::Serialize for $table {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.id())
            }
        }
    };
}

pub(crate) use identifiers;

#[cfg(test)]
mod tests {
    use crate::{Cause, Check};
    use std::collections::BTreeSet;

    #[test]
    fn ids_are_unique_and_well_formed() {
        let checks: BTreeSet<_> = Check::ALL.iter().map(|check| check.id()).collect();
        let causes: BTreeSet<_> = Cause::ALL.iter().map(|cause| cause.id()).collect();
        assert_eq!((checks.len(), causes.len()), (Check::ALL.len(), Cause::ALL.len()));
        let is_of = |id: &str, is_letter: fn(&u8) -> bool| {
            id.bytes().all(|b| is_letter(&b) || b.is_ascii_digit() || b == b'-')
        };
        assert!(checks.iter().all(|id| is_of(id, u8::is_ascii_uppercase)));
        assert!(causes.iter().all(|id| is_of(id, u8::is_ascii_lowercase)));
        assert!(Cause::ALL.iter().all(|cause| !cause.checks().is_empty()));
    }
}
