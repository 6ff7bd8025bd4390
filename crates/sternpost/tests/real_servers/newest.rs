//! The newest Postfix and Exim, of Debian's unstable release. The archive changes daily, so only `./test all` runs these
//! tests.

use crate::postfix::Release;
use crate::{exim, table};

#[test]
fn postfix_3_11_delivers_and_reports_as_the_policies_say() {
    table::all_as_expected(Release::V3_11);
}

#[test]
fn exim_delivers_as_the_policies_say() {
    exim::delivers_as_the_policies_say("exim-unstable");
}
