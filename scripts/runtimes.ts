/**
 * Runs the built core in other runtimes: a browser, Deno and Bun. It needs a build (`npm run build`).
 *
 *     npm run runtimes -- --chromium /usr/bin/chromium --deno /path/deno --bun /path/bun
 *
 * The program is one bundle without Node modules. It runs agents under a budget against the simulated provider, cancels
 * one, reads a stream, and then uses the official SDK against an HTTP provider on loopback.
 */
import { spawn } from "node:child_process"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { rolldown } from "rolldown"

const root = join(import.meta.dirname, "..")
const temp = mkdtempSync(join(tmpdir(), "floodgate-runtimes-"))
const args = process.argv.slice(2)

const program = (baseUrl: string): string => `
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as Stream from "effect/Stream"
import { Budget, LlmClient } from ${JSON.stringify(join(root, "dist/index.js"))}
import * as Anthropic from ${JSON.stringify(join(root, "dist/adapters/anthropic/provider.js"))}
import { ProviderSim } from ${JSON.stringify(join(root, "dist/testing/index.js"))}
import { LlmProvider } from ${JSON.stringify(join(root, "dist/LlmProvider.js"))}
import Sdk from "@anthropic-ai/sdk"

const params = { model: "claude-sonnet-5", max_tokens: 100, messages: [{ role: "user", content: "Hello" }] }
const limits = { requests: { perMinute: 60_000 }, inputTokens: { perMinute: 2_000_000 } }
const ask = (agent) => LlmClient.create(params, { agent: String(agent) })
const simulated = Effect.gen(function* () {
  const answers = yield* Effect.forEach([...Array(24).keys()], ask, { concurrency: "unbounded" })
  const cancelled = yield* Effect.forkChild(ask("late"))
  yield* Fiber.interrupt(cancelled)
  const events = yield* Stream.runCollect(LlmClient.stream(params))
  const { inFlight } = (yield* (yield* Budget.TokenBudget).status).pools.default
  return [answers.length, [...events].at(-1).type, inFlight].join(" ")
}).pipe(
  Effect.provide(
    LlmClient.layerProvider().pipe(
      Layer.provideMerge(Budget.layer({ limits })),
      Layer.provide(ProviderSim.layer({ limits, latency: { baseMillis: 5 } }))
    )
  )
)
const overHttp = Effect.gen(function* () {
  const message = yield* ask("http")
  const events = yield* Stream.runCollect(LlmClient.stream(params))
  return [message.content[0].text, [...events].at(-1).type].join(" ")
}).pipe(
  Effect.provide(
    LlmClient.layerProvider().pipe(
      Layer.provideMerge(Budget.layer({ limits })),
      Layer.provide(
        Layer.succeed(LlmProvider,
          Anthropic.fromClient(new Sdk({ apiKey: "any", baseURL: ${JSON.stringify(baseUrl)}, dangerouslyAllowBrowser: true })))
      )
    )
  )
)
const result = await Effect.runPromise(Effect.all([simulated, overHttp])).then(
  (parts) => parts.join(" | "),
  (error) => "failed: " + error
)
if (globalThis.document === undefined) console.log(result)
else await fetch(${JSON.stringify(`${baseUrl}/result`)}, { method: "POST", body: result })
`

const expected = "24 message_stop 0 | Hi message_stop"

// -----------------------------------------------------------------------------
// A provider on loopback, with CORS for any page
// -----------------------------------------------------------------------------

const message = {
  id: "msg_1",
  type: "message",
  role: "assistant",
  model: "claude-sonnet-5",
  content: [{ type: "text", text: "Hi" }],
  stop_reason: "end_turn",
  stop_sequence: null,
  usage: { input_tokens: 10, output_tokens: 2 }
}
const events = [
  { type: "message_start", message: { ...message, content: [] } },
  { type: "content_block_start", index: 0, content_block: { type: "text", text: "" } },
  { type: "content_block_delta", index: 0, delta: { type: "text_delta", text: "Hi" } },
  { type: "content_block_stop", index: 0 },
  { type: "message_delta", delta: { stop_reason: "end_turn" }, usage: { output_tokens: 2 } },
  { type: "message_stop" }
]
let page = ""
let told: (result: string) => void = () => {}
const server = createServer((request, response) => {
  let body = ""
  request.on("data", (chunk) => (body += chunk))
  request.on("end", () => {
    const headers = { "access-control-allow-origin": "*", "access-control-allow-headers": "*" }
    if (request.url === "/result") {
      response.writeHead(204, headers).end()
      told(body)
    } else if (request.url === "/" || request.url === "/bundle.js") {
      const type = request.url === "/" ? "text/html" : "text/javascript"
      response
        .writeHead(200, { "content-type": type })
        .end(request.url === "/" ? `<script type="module" src="/bundle.js"></script>` : page)
    } else if (request.method !== "POST") {
      response.writeHead(204, headers).end()
    } else if (JSON.parse(body).stream === true) {
      response.writeHead(200, { ...headers, "content-type": "text/event-stream" })
      response.end(events.map((event) => `event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`).join(""))
    } else {
      response.writeHead(200, { ...headers, "content-type": "application/json" }).end(JSON.stringify(message))
    }
  })
})
await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
const baseUrl = `http://127.0.0.1:${(server.address() as AddressInfo).port}`

// -----------------------------------------------------------------------------
// Runs
// -----------------------------------------------------------------------------

const entry = join(root, "dist/.runtimes.js")
writeFileSync(entry, program(baseUrl))
const bundle = await rolldown({ input: entry, platform: "browser", logLevel: "silent" })
const { output } = await bundle.generate({ format: "esm", codeSplitting: false })
rmSync(entry)
page = output[0].code
const file = join(temp, "bundle.mjs")
writeFileSync(file, page)

const runs: Readonly<Record<string, ReadonlyArray<string>>> = {
  node: [file],
  deno: ["run", "--no-config", "--allow-net=127.0.0.1", "--allow-env", file],
  bun: ["run", file],
  chromium: ["--headless", "--no-sandbox", "--disable-gpu", `--user-data-dir=${join(temp, "profile")}`, `${baseUrl}/`]
}

const outcome = (command: string, list: ReadonlyArray<string>): Promise<string> =>
  new Promise((resolve) => {
    const child = spawn(command, list, { stdio: ["ignore", "pipe", "pipe"] })
    let text = ""
    let errors = ""
    const timer = setTimeout(() => finish("no result within a minute"), 60_000)
    const finish = (result: string): void => {
      clearTimeout(timer)
      child.kill()
      resolve(result)
    }
    told = finish
    child.stdout.on("data", (chunk) => (text += chunk))
    child.stderr.on("data", (chunk) => (errors += chunk))
    child.on("error", (error) => finish(String(error)))
    child.on("close", () => finish((text.trim() || errors).slice(-500)))
  })

let failed = false
for (const [name, list] of Object.entries(runs)) {
  const at = args.indexOf(`--${name}`)
  const given = at === -1 ? undefined : args[at + 1]
  const command = name === "node" ? process.execPath : given
  if (command === undefined) continue
  const result = await outcome(command, list)
  failed ||= result !== expected
  console.log(`${result === expected ? "ok  " : "FAIL"}  ${name}: ${result}`)
}
server.closeAllConnections()
server.close()
rmSync(temp, { recursive: true, force: true })
process.exit(failed ? 1 : 0)
