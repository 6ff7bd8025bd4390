// Sends one message: mx-connect finds and connects to the MX host, nodemailer's SMTPConnection speaks SMTP. TLS is opportunistic
// unless mx-connect says that it is required, and the certificate is judged where mx-connect offers a function for it.
'use strict';

const { execFile } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');
const { promisify } = require('node:util');
const mxConnect = require('mx-connect');
const SMTPConnection = require('nodemailer/lib/smtp-connection');

const [from, to, file] = process.argv.slice(2);
const policy = domain => path.join(process.env.LAB_DIR, 'policies', encodeURIComponent(domain));

// The records of the answer, whether or not it is authenticated: mx-connect has no place for that.
async function resolveTlsa(name) {
    const { stdout } = await promisify(execFile)('dig', ['+noall', '+comments', '+answer', name, 'TLSA']);
    if (!/status: (NOERROR|NXDOMAIN)/.test(stdout)) {
        throw Object.assign(new Error('the query for TLSA records failed'), { code: 'ESERVFAIL' });
    }
    const records = stdout.matchAll(/\sTLSA\s+(\d+) (\d+) (\d+) ([0-9A-F ]+)$/gm);
    return Array.from(records, ([, usage, selector, match, data]) => ({
        usage: Number(usage),
        selector: Number(selector),
        mtype: Number(match),
        cert: Buffer.from(data.replaceAll(' ', ''), 'hex')
    }));
}

const cache = {
    get: async domain => fs.existsSync(policy(domain)) && JSON.parse(fs.readFileSync(policy(domain), 'utf8')),
    // The error of a failed fetch is an object that JSON does not have.
    set: async (domain, found) => fs.writeFileSync(policy(domain), JSON.stringify({ ...found, error: undefined }))
};

async function main() {
    const mx = await mxConnect({
        target: to,
        maxConnectTime: 5000,
        mtaSts: { enabled: true, cache },
        dane: { enabled: true, resolveTlsa }
    });
    const smtp = new SMTPConnection({
        connection: mx.socket,
        host: mx.hostname,
        name: 'mail.sender.test',
        opportunisticTLS: !mx.requireTls,
        requireTLS: Boolean(mx.requireTls),
        greetingTimeout: 5000,
        tls: mx.daneVerifier
            ? { servername: mx.hostname, checkServerIdentity: mx.daneVerifier }
            : { servername: mx.hostname, rejectUnauthorized: false }
    });
    smtp.on('error', error => console.error(to, error.message));
    smtp.connect(() => smtp.send({ from, to: [to] }, fs.readFileSync(file, 'utf8'), error => {
        console.error(to, error ? error.message : 'sent');
        smtp.quit();
    }));
}

main().catch(error => console.error(to, error.message));
