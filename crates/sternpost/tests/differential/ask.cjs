// What mx-connect does with each MX host of the lab: reads lines of `DOMAIN HOST ALONE` and prints lines of
// `HOST OUTCOME`, the outcome being one of none, secure, dane, refuse and defer. With ALONE = 1 the host is the
// domain's only one, and mx-connect finds it by itself.
'use strict';

const { execFile } = require('node:child_process');
const { promisify } = require('node:util');
const mxConnect = require('mx-connect');

const run = promisify(execFile);

// As the resolver of newer Node.js does: the records of the answer, whether or not it is authenticated.
async function resolveTlsa(name) {
    const { stdout } = await run('dig', ['@127.0.0.1', '+noall', '+comments', '+answer', name, 'TLSA']);
    if (!/status: (NOERROR|NXDOMAIN)/.test(stdout)) {
        throw Object.assign(new Error('the query for TLSA records failed'), { code: 'ESERVFAIL' });
    }
    const records = stdout.matchAll(/\sTLSA\s+(\d+) (\d+) (\d+) ([0-9A-F ]+)$/gm);
    return Array.from(records, ([, usage, selector, match, data]) => ({
        certUsage: Number(usage),
        selector: Number(selector),
        match: Number(match),
        data: Buffer.from(data.replaceAll(' ', ''), 'hex')
    }));
}

async function outcome(domain, host, alone) {
    let policy = { mode: 'none' };
    const options = {
        target: domain,
        mx: alone ? [] : [{ exchange: host, priority: 10 }],
        mtaSts: {
            enabled: true,
            cache: { get: async () => false, set: async (_, fetched) => void (policy = fetched) }
        },
        dane: { enabled: true, resolveTlsa },
        // Called when mx-connect is about to connect: no connection is needed.
        connectHook: (_, options, done) => {
            options.socket = { remoteAddress: options.host };
            done();
        }
    };
    try {
        const connection = await mxConnect(options);
        if (connection.daneEnabled) {
            return 'dane';
        }
        return policy.mode === 'enforce' ? 'secure' : 'none';
    } catch (error) {
        return error.category === 'policy' ? 'refuse' : 'defer';
    }
}

async function main() {
    const lines = require('node:fs').readFileSync(0, 'utf8').trim().split('\n');
    for (const line of lines) {
        const [domain, host, alone] = line.split(' ');
        console.log(`${host} ${await outcome(domain, host, alone === '1')}`);
    }
}

main();
