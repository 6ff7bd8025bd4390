'use strict'

// Reports how TLS went in Haraka's deliveries to Sternpost, which makes TLS reports (RFC 8460) of them. Described in
// docs/tlsrpt-sending.md. Settings, in config/sternpost.ini:
//
//   url=http://127.0.0.1:8464/v1/sessions
//   token_file=/etc/sternpost/collector.token
//
// Nothing here delays or changes a delivery. Sessions wait in memory, at most MAX_WAITING of them, and are posted in batches
// once a second; what Sternpost does not take is posted again, with the same key, so that it counts once.

const crypto = require('node:crypto')
const fs = require('node:fs')
const http = require('node:http')
const https = require('node:https')
const net = require('node:net')

const MAX_WAITING = 10000
const MAX_BATCH = 1000
const INTERVAL_MS = 1000
const TIMEOUT_MS = 10000

let settings = { url: 'http://127.0.0.1:8464/v1/sessions', token: '' }
let waiting = []
let batch = null
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
    if (waiting.length >= MAX_WAITING) {
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
        while (batch || waiting.length) {
            batch = batch || { key: crypto.randomUUID(), sessions: waiting.splice(0, MAX_BATCH) }
            const { status, text } = await request(batch)
            if (status === 400 || status === 413) {
                plugin.logerror(`Sternpost refused ${batch.sessions.length} sessions: ${text}`)
            } else if (status !== 200) {
                throw new Error(`status ${status}`)
            }
            batch = null
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
