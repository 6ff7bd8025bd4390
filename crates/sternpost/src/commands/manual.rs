//! `sternpost man` and `sternpost completions`: manual pages and shell completions, made from the command line's own
//! description and from the table of configuration keys.

use crate::replaced_file::replace;
use crate::terminal::{marks, say, show};
use clap::Command;
use clap_complete::Shell;
use config::failure::{Exit, Failure};
use std::io;
use std::path::{Path, PathBuf};

/// The options of `sternpost man`.
#[derive(Debug, clap::Args)]
pub struct Man {
    /// The folder of manual pages, such as /usr/local/share/man; the pages go to man1 and man5 in it
    dir: PathBuf,
}

/// The options of `sternpost completions`.
#[derive(Debug, clap::Args)]
pub struct Completions {
    /// Shell to print completions for
    shell: Shell,
}

/// The name of the manual page of the configuration file.
const CONFIGURATION_PAGE: &str = "sternpost.toml.5";

/// Writes a page of section 1 for the program and for each command, and one of section 5 for the configuration file.
pub fn man(options: &Man, program: Command) -> Result<Exit, Failure> {
    let dir = &options.dir;
    let fail = |error: io::Error| {
        let what = format!("the manual pages can't be written to {}", dir.display());
        Failure::usage(what, error, "Name another folder.")
    };
    let (commands, files) = (dir.join("man1"), dir.join("man5"));
    std::fs::create_dir_all(&commands).and_then(|()| std::fs::create_dir_all(&files)).map_err(fail)?;
    let source = format!("sternpost {}", program.get_version().unwrap_or_default());
    let mut program = program.disable_help_subcommand(true);
    // Gives each subcommand its full name.
    program.build();
    write_pages(&program, &source, &commands).map_err(fail)?;
    replace(&files.join(CONFIGURATION_PAGE), config::manual()).map_err(fail)?;
    say(&format!("{} The manual pages are in {}.", marks().fine, dir.display()));
    Ok(Exit::Fine)
}

/// Writes the page of a command and those of its subcommands.
fn write_pages(command: &Command, source: &str, dir: &Path) -> io::Result<()> {
    let page = clap_mangen::Man::new(command.clone()).source(source).manual("Sternpost");
    let mut text = Vec::new();
    page.render(&mut text)?;
    // What follows the options in the help is always an example.
    let text = String::from_utf8_lossy(&text).replace("\n.SH EXTRA\n", "\n.SH EXAMPLES\n");
    replace(&dir.join(page.get_filename()), text)?;
    let subcommands = command.get_subcommands().filter(|command| !command.is_hide_set());
    subcommands.into_iter().try_for_each(|command| write_pages(command, source, dir))
}

/// Prints the completions of a shell.
pub fn completions(options: &Completions, mut program: Command) -> Exit {
    let mut text = Vec::new();
    clap_complete::generate(options.shell, &mut program, "sternpost", &mut text);
    show(&String::from_utf8_lossy(&text));
    Exit::Fine
}
