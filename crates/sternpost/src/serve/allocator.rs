//! Gives the memory that large reports needed back to the system.
//!
//! By default, glibc allocates a block from the kernel by itself, and returns it when it is freed, only if it is larger than
//! a threshold that grows: to the size of the largest such block that was freed so far, up to 32 MiB (mallopt(3),
//! M_MMAP_THRESHOLD). After a few large reports, blocks of megabytes come from the heaps of the threads, which keep them, so
//! that some bombs from strangers leave hundreds of megabytes with an idle process. A fixed threshold prevents that.
//!
//! glibc reads it from the environment when a program starts, before its first line. `serve` therefore executes its program
//! once more with the variable set. Process ID, arguments, sockets from systemd and ignored signals stay the same.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// The variable of glibc; its name ends with an underscore.
const VARIABLE: &str = "MALLOC_MMAP_THRESHOLD_";
/// Larger than the blocks of ordinary reports, and of everything that an answer needs.
const BYTES: &str = "262144";

/// Executes the program again with a fixed threshold, unless the environment has one. Has to be called before other threads
/// begin. Returns where nothing is to be done, and where it fails: memory is then used as glibc does by default.
pub fn fix_threshold() {
    if cfg!(not(target_env = "gnu")) || std::env::var_os(VARIABLE).is_some() {
        return;
    }
    // After an upgrade of the program's file, its path may be that of another one, or of none.
    let Ok(program) = std::env::current_exe() else { return };
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_else(|| OsString::from("sternpost"));
    let _failed = Command::new(program).arg0(name).args(arguments).env(VARIABLE, BYTES).exec();
}
