/**
 * The memory of a gateway under 10,000 names of agents, 600 clients with keys of their own, caps, reloads and faults. Within the first
 * third every name has been used; after it the heap must not grow. It makes 60,000 requests, or `FLOODGATE_REQUESTS`, in a few minutes,
 * and writes what has grown to standard error. Prompts repeat, because 50,000 different ones are remembered.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Http from "node:http"
import type { AddressInfo } from "node:net"
import type * as Gateway from "@floodgate/gateway"
import { gatewayTo } from "../../../test/support/gateway.ts"
import { grown, heapParts, heapUsed } from "../../../test/support/heap.ts"
import type { Handler } from "../../../test/support/httpServer.ts"
import { mulberry } from "../../../test/support/random.ts"

const requests = Number(process.env["FLOODGATE_REQUESTS"] ?? "60000")
const names = Number(process.env["FLOODGATE_NAMES"] ?? "10000")
const clients = 600
const concurrency = 60
/** The heap is measured this often in each third. */
const samplesInThird = 5
/** How much the heap may grow in the last two thirds: caches that were full move, and compiled code is added. */
const maxGrowth = 4e6

const usage = { prompt_tokens: 900, completion_tokens: 30, input_tokens: 900, output_tokens: 30 }
const whole = JSON.stringify({
  id: "c1",
  model: "gpt-6",
  choices: [{ index: 0, message: { role: "assistant", content: "Hi" }, finish_reason: "stop" }],
  usage
})
const event = (data: object): string => `data: ${JSON.stringify(data)}\n\n`
const delta = event({ id: "c1", choices: [{ index: 0, delta: { content: "Hi" } }] })
const end =
  event({ id: "c1", choices: [{ index: 0, delta: {}, finish_reason: "stop" }] }) +
  event({ id: "c1", choices: [], usage }) +
  "data: [DONE]\n\n"

/** What the provider does: `x-fault` names it, so that each client knows what it is going to see. */
const provider: Handler = (request, response, body) => {
  const fault = request.headers["x-fault"]
  const error = (status: number, type: string) =>
    void response
      .writeHead(status, { "content-type": "application/json" })
      .end(JSON.stringify({ error: { type, message: "no" } }))
  if (fault === "429") return error(429, "rate_limit_exceeded")
  if (fault === "500") return error(500, "server_error")
  if (fault === "400") return error(400, "invalid_request_error")
  if (fault === "break") return void response.destroy()
  if (body.includes('"stream":true')) {
    response.writeHead(200, { "content-type": "text/event-stream" }).write(delta)
    if (fault === "cut") return void response.destroy()
    return fault === "endless" ? undefined : void response.end(end)
  }
  response.writeHead(200, {
    "content-type": "application/json",
    "x-ratelimit-limit-requests": "100000",
    "x-ratelimit-remaining-requests": "99999",
    "x-ratelimit-reset-requests": "1s"
  })
  if (fault === "half") return void response.write(whole.slice(0, 20), () => response.destroy())
  return void response.end(whole)
}

const faults: ReadonlyArray<string | undefined> = [
  ...Array.from({ length: 60 }, () => undefined),
  "429",
  "500",
  "400",
  "break",
  "cut",
  "endless",
  "half",
  "hung up",
  "not json",
  "unknown path"
]

/** A provider that remembers no request. */
const upstreamOf = (handler: Handler) =>
  Effect.acquireRelease(
    Effect.callback<Http.Server>((resume) => {
      const server = Http.createServer((request, response) => {
        let body = ""
        request.on("data", (chunk) => (body += chunk)).on("end", () => handler(request, response, body))
      })
      server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
    }),
    (server) =>
      Effect.sync(() => {
        server.closeAllConnections()
        server.close()
      })
  ).pipe(Effect.map((server) => ({ url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` })))

describe("the memory of a gateway", () => {
  it.live(
    "is flat once every agent and client has been seen",
    () =>
      Effect.gen(function* () {
        const random = mulberry(Number(process.env["FLOODGATE_SEED"] ?? "1"))
        const upstream = yield* upstreamOf(provider)
        const optionsOf = (generation: number): Gateway.Options => ({
          upstreams: { openai: upstream.url },
          rules: [
            { headers: { "x-team": `team-${generation % 2}` }, cap: { dollars: 1e5, per: "day" } },
            { agent: "agent-*", capPerAgent: { dollars: 1e3, per: "5 hours" }, weight: 1 + (generation % 3) }
          ],
          // Calls that wait for a pool in an outage end soon.
          maxHold: "1 second"
        })
        const here = yield* gatewayTo(upstream.url, optionsOf(0), undefined)
        const { port } = new URL(here.url)
        const agent = new Http.Agent({ keepAlive: true, maxSockets: concurrency })
        const seen = new Map<string, number>()
        const send = (index: number): Promise<void> =>
          new Promise((resolve) => {
            // Each agent has a client and a model of its own, so that every combination is seen in the first third.
            const name = index % names
            const fault = index % 500 === 0 ? "page" : faults[Math.floor(random() * faults.length)]
            const model = ["gpt-6-sol", "gpt-6.2-sol", "gpt-5-mini"][name % 3]!
            const stream = index % 2 === 0
            const pages: Readonly<Record<string, string>> = {
              "unknown path": `/v1/things/${index}`,
              page: ["/metrics", "/floodgate/status"][(index / 500) % 2]!
            }
            const page = pages[fault ?? ""]
            const path = page ?? "/v1/chat/completions"
            const method = page === undefined ? "POST" : "GET"
            const headers = {
              authorization: `Bearer sk-client-${name % clients}-of-the-soak`,
              "content-type": "application/json",
              "x-floodgate-agent": `agent-${name}`,
              "x-team": `team-${name % 5}`,
              ...(fault !== undefined && { "x-fault": fault })
            }
            const done = (status: string): void => {
              seen.set(status, (seen.get(status) ?? 0) + 1)
              resolve()
            }
            const request = Http.request({ port, path, method, headers, agent }, (response) => {
              response.on("error", () => done("broken")).on("end", () => done(String(response.statusCode)))
              response.once("data", () => {
                if (fault === "endless") request.destroy()
              })
              response.resume()
              response.on("close", () => done("closed"))
            })
            request.on("error", () => done("error"))
            if (method === "GET") return void request.end()
            if (fault === "hung up") setImmediate(() => request.destroy())
            const content = `Hello ${name} ${"word ".repeat(name % 50)}`
            request.end(
              fault === "not json"
                ? "{"
                : JSON.stringify({ model, stream, max_tokens: 100, messages: [{ role: "user", content }] })
            )
          })
        const sizes: Array<number> = []
        let next = 0
        const part = Math.floor(requests / (3 * samplesInThird))
        let before: ReturnType<typeof heapParts> | undefined
        for (let sample = 0; sample < 3 * samplesInThird; sample++) {
          const last = (sample + 1) * part
          yield* Effect.promise(() =>
            Promise.all(
              Array.from({ length: concurrency }, async () => {
                while (next < last) await send(next++)
              })
            )
          )
          yield* here.reload(optionsOf(sample + 1))
          sizes.push(yield* Effect.promise(heapUsed))
          process.stderr.write(`${next} requests, ${Math.round(sizes.at(-1)! / 1e5) / 10} MB\n`)
          if (sample === samplesInThird) before = heapParts()
        }
        const megabytes = sizes.map((size) => Math.round(size / 1e5) / 10)
        const after = heapParts()
        process.stderr.write(
          `${JSON.stringify({ requests: next, megabytes, seen: Object.fromEntries(seen) })}\n${grown(before!, after)}\n`
        )
        agent.destroy()
        const growth = Math.min(...sizes.slice(-3)) - Math.min(...sizes.slice(samplesInThird, samplesInThird + 3))
        assert.isBelow(growth, maxGrowth, `the heap in MB: ${megabytes.join(", ")}`)
      }),
    1_200_000
  )
})
