//! The text of an error with its causes, for errors of libraries whose outermost is hardly more than "client error".

use std::error::Error;

/// The error and its causes, from the outermost to the first, separated by colons.
pub fn causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
