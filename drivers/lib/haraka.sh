# HARAKA_ROOT is the folder with node_modules/Haraka.
haraka=${HARAKA_ROOT:-${STERNPOST_TEST_ROOTS:-/var/tmp/sternpost-test}/haraka}
