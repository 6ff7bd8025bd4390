'use strict'

// A session that the collector refuses costs only itself, and is counted once the collector takes it. Run: node sternpost.test.js

const assert = require('node:assert')
const http = require('node:http')
const plugin = require('./sternpost.js')

let refused = 'd77.example'
let posts = 0
const counted = new Map()

const server = http.createServer((request, response) => {
    let body = ''
    request.on('data', (chunk) => (body += chunk))
    request.on('end', () => {
        posts++
        if (refused && body.includes(refused)) response.statusCode = 400
        else counted.set(request.headers['idempotency-key'], body.split('\n').length)
        response.end('{}')
    })
})

const sum = () => [...counted.values()].reduce((all, one) => all + one, 0)

server.listen(0, '127.0.0.1', async () => {
    const url = `http://127.0.0.1:${server.address().port}/v1/sessions`
    const errors = []
    const haraka = {
        config: { get: () => ({ main: { url } }) },
        logerror: (text) => errors.push(text),
        lognotice: () => {},
    }
    plugin.register.call(haraka)
    for (let n = 0; n < 1000; n++) {
        const mail = { todo: { domain: `d${n}.example` } }
        plugin.hook_delivered.call(haraka, () => {}, mail, ['mx.example', '192.0.2.1', , , , 'SMTP', , true])
    }
    await plugin.shutdown.call(haraka)
    assert.equal(sum(), 999)
    assert.equal(errors.length, 1)
    const before = posts
    await plugin.shutdown.call(haraka)
    assert.equal(posts, before)
    refused = null
    const now = Date.now
    Date.now = () => now() + 600001
    await plugin.shutdown.call(haraka)
    assert.equal(sum(), 1000)
    process.exit(0)
})
