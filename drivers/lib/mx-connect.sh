# MX_CONNECT is the folder with node_modules/mx-connect and node_modules/nodemailer.
modules=${MX_CONNECT:-${STERNPOST_TEST_ROOTS:-/var/tmp/sternpost-test}/mx-connect}
