//! Lays the code that a start runs side by side: less of the program's file is in memory then, and
//! it starts sooner. `link/early-code` says more, and makes the list.

use std::path::Path;
use std::{env, fs, io};

const LIST: &str = "link/early-code.txt";

fn main() -> io::Result<()> {
    for changed in [LIST, "build.rs"] {
        println!("cargo:rerun-if-changed={changed}");
    }
    if !suits() {
        return Ok(());
    }
    let place = env::var("OUT_DIR").map_err(io::Error::other)?;
    let script = Path::new(&place).join("early.ld");
    fs::write(&script, order(&fs::read_to_string(LIST)?))?;
    println!("cargo:rustc-link-arg-bins=-Wl,--script={}", script.display());
    Ok(())
}

/// Only where the linker is the one that Rust brings for the machine on which the list was made:
/// others may not know the script, and the order is never worth a build that fails.
fn suits() -> bool {
    let is = |name: &str, wanted: &str| env::var(name).is_ok_and(|value| value == wanted);
    let own_linker = env::var_os("RUSTC_LINKER").is_none()
        && !env::var("CARGO_ENCODED_RUSTFLAGS").is_ok_and(|flags| flags.contains("link"));
    own_linker && is("TARGET", "x86_64-unknown-linux-gnu") && is("PROFILE", "release")
}

/// A linker script that puts one section before all other code. A function's section bears its name,
/// with a word before it where the compiler holds it unlikely, and may have something after it.
fn order(list: &str) -> String {
    let sections: String = list
        .lines()
        .map(|name| {
            format!("  *(.text.{name} .text.{name}.* .text.unlikely.{name} .text.unlikely.{name}.*)\n")
        })
        .collect();
    format!("SECTIONS {{ .text.early : {{\n{sections}}} }} INSERT BEFORE .text;\n")
}
