'use strict'

// Reports how TLS went in Haraka's deliveries to Sternpost, which makes TLS reports (RFC 8460) of them. Described in
// docs/tlsrpt-sending.md. Settings, in config/sternpost.ini:
//
//   url=http://127.0.0.1:8464/v1/sessions
//   token_file=/etc/sternpost/collector.token
//
// Nothing here delays or changes a delivery. Sessions wait in memory, at most MAX_WAITING of them, and are posted in batches
// once a second; what Sternpost does not take is posted again, with the same key, so that it counts once. A batch that
// Sternpost refuses is split in halves, until only the sessions at fault are left. These wait too, and are posted again for
// a day: an update of Sternpost may make it take them.

const crypto = require('node:crypto')
const fs = require('node:fs')
const http = require('node:http')
const https = require('node:https')
const net = require('node:net')

const MAX_WAITING = 10000
const MAX_BATCH = 1000
const INTERVAL_MS = 1000
const TIMEOUT_MS = 10000
const REFUSED_RETRY_MS = 600000
const REFUSED_LIFE_MS = 86400000

let settings = { url: 'http://127.0.0.1:8464/v1/sessions', token: '' }
let waiting = []
// Batches with their keys: { key, sessions, since }. `since` is when Sternpost first refused them.
let batches = []
// Refused batches with a single session, until `at`.
let refused = []
let lost = 0
let is_posting = false
let is_down = false
let timer = null

exports.register = function () {
    const main = this.config.get('sternpost.ini').main || {}
    settings = { url: main.url || settings.url, token: '' }
    if (main.token_file) settings.token = fs.readFileSync(main.token_file, 'utf8').trim()
    if (!timer) timer = setInterval(() => post(this), INTERVAL_MS)
    timer.unref()
}

exports.hook_delivered = function (next, hmail, params) {
    const [host, ip, , , , mode, , secured] = params
    // LMTP and other local deliveries are not sessions with an MX host.
    if (mode === 'SMTP') keep(hmail, { tls: secured ? 'unverified' : 'none' }, host, ip)
    next()
}

exports.hook_deferred = function (next, hmail, params) {
    failed(hmail, params && params.err)
    next()
}

exports.hook_bounce = function (next, hmail, error) {
    failed(hmail, error)
    next()
}

// The last sessions before Haraka ends.
exports.shutdown = function () {
    return post(this)
}

// Haraka names TLS as the cause only where its configuration requires TLS (force_tls_hosts).
function failed(hmail, error) {
    const why = String((error && error.message) || error || '')
    if (why.includes('No TLS available but required')) {
        keep(hmail, { tls: 'failed', 'result-type': 'starttls-not-supported' })
    } else if (why.includes('failed TLS verification required')) {
        keep(hmail, { tls: 'failed', 'result-type': 'validation-failure', 'failure-reason-code': why.slice(0, 200) })
    }
}

function keep(hmail, session, host, ip) {
    const domain = hmail && hmail.todo && hmail.todo.domain
    if (!domain) return
    if (waiting.length + refused.length >= MAX_WAITING) {
        lost++
        return
    }
    session['policy-domain'] = domain
    session.at = new Date().toISOString()
    if (host && !net.isIP(host)) session['receiving-mx-hostname'] = String(host)
    if (net.isIP(ip)) session['receiving-ip'] = ip
    waiting.push(session)
}

async function post(plugin) {
    if (is_posting) return
    is_posting = true
    try {
        const now = Date.now()
        while (refused.length && refused[0].at <= now) batches.push(refused.shift())
        while (batches.length || waiting.length) {
            if (!batches.length) batches.push(keyed(waiting.splice(0, MAX_BATCH)))
            const { status, text } = await request(batches[0])
            if (status === 400 || status === 413 || status === 422) {
                not_taken(plugin, batches.shift(), text)
                continue
            }
            if (status !== 200) throw new Error(`status ${status}`)
            batches.shift()
            if (is_down || lost) plugin.lognotice(`Sternpost takes sessions; ${lost} were lost meanwhile`)
            is_down = false
            lost = 0
        }
    } catch (error) {
        if (!is_down) plugin.logerror(`Sternpost does not take sessions, they wait: ${error.message}`)
        is_down = true
    } finally {
        is_posting = false
    }
}

function keyed(sessions, since) {
    return { key: crypto.randomUUID(), sessions, since }
}

// None of the sessions of a refused batch is counted, so its parts get keys of their own.
function not_taken(plugin, { sessions, since }, text) {
    const now = Date.now()
    if (sessions.length > 1) {
        const half = sessions.length >> 1
        batches.unshift(keyed(sessions.slice(0, half), since), keyed(sessions.slice(half), since))
    } else if (since && now - since >= REFUSED_LIFE_MS) {
        plugin.logerror(`a session is lost: Sternpost refused it for a day: ${text}`)
    } else {
        if (!since) plugin.logerror(`Sternpost refused a session, which is posted again for a day: ${text}`)
        refused.push({ ...keyed(sessions, since || now), at: now + REFUSED_RETRY_MS })
    }
}

// Haraka runs plugins without the global `fetch`.
function request({ key, sessions }) {
    const body = sessions.map((session) => JSON.stringify(session)).join('\n')
    const headers = { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(body), 'Idempotency-Key': key }
    if (settings.token) headers.Authorization = `Bearer ${settings.token}`
    const client = settings.url.startsWith('https:') ? https : http
    return new Promise((resolve, reject) => {
        const sent = client.request(settings.url, { method: 'POST', headers, timeout: TIMEOUT_MS }, (response) => {
            let text = ''
            response.on('data', (chunk) => {
                if (text.length < 300) text += chunk
            })
            response.on('end', () => resolve({ status: response.statusCode, text: text.slice(0, 300) }))
            response.on('error', reject)
        })
        sent.on('timeout', () => sent.destroy(new Error('no answer in time')))
        sent.on('error', reject)
        sent.end(body)
    })
}
