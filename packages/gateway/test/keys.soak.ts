/**
 * A hostile time for keys: guesses, games with headers, several credentials, reloads under load that remove keys with open streams.
 * It takes a minute, or `FLOODGATE_MINUTES`.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import { createHash, randomBytes } from "node:crypto"
import { setTimeout as sleep } from "node:timers/promises"
import { dial, gatewayTo } from "../../../test/support/gateway.ts"
import { type Handler, serve } from "../../../test/support/httpServer.ts"
import { mulberry } from "../../../test/support/random.ts"

const provider = "sk-provider-secret"
const chat = "/v1/chat/completions"
const minutes = Number(process.env["FLOODGATE_MINUTES"] ?? "1")

const sha256 = (key: string): string => createHash("sha256").update(key).digest("hex")

describe("keys in a hostile time", () => {
  it.live(
    "let in nobody else, leak nothing, and lose no caller",
    () =>
      Effect.gen(function* () {
        const random = mulberry(Number(process.env["FLOODGATE_SEED"] ?? "1"))
        const pick = <A>(of: ReadonlyArray<A>): A => of[Math.floor(random() * of.length)]!
        const wrong: Array<string> = []
        const seen = { calls: 0, hostile: 0, streams: 0, reloads: 0, slowest: 0 }
        /** The keys that were ever given out. None of them may reach the provider. */
        const given = new Set<string>()
        const upstream = yield* serve(((request, response, body) => {
          const raw = request.rawHeaders.join("\n")
          if (!raw.includes(`Bearer ${provider}`)) wrong.push(`without the credential: ${raw}`)
          if (/fg-|hostile/.test(raw + (request.url ?? ""))) wrong.push(`a caller's: ${raw} ${request.url}`)
          if (body.includes('"stream":true')) {
            response.writeHead(200, { "content-type": "text/event-stream" })
            return void response.write('data: {"choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n')
          }
          const usage = { prompt_tokens: 9, completion_tokens: 3 }
          return void response
            .writeHead(200, { "content-type": "application/json" })
            .end(JSON.stringify({ id: "c", model: "m", choices: [], usage }))
        }) satisfies Handler)
        const keyOf = (): string => {
          const key = `fg-${randomBytes(12).toString("base64url")}`
          given.add(key)
          return key
        }
        const steady = keyOf()
        let turning = keyOf()
        const optionsOf = () => ({
          upstreams: { openai: upstream.url },
          credentials: { openai: Redacted.make(provider) },
          keys: [
            { name: "steady", sha256: sha256(steady) },
            { name: "turning", sha256: sha256(turning) },
            { name: "old", sha256: sha256("fg-old"), expires: "2020-01-01" }
          ]
        })
        const here = yield* gatewayTo(upstream.url, optionsOf())
        const end = performance.now() + minutes * 60_000
        const isOver = () => performance.now() > end || wrong.length > 0
        const body = JSON.stringify({ model: "m", messages: [] })

        const loyal = async (): Promise<void> => {
          while (!isOver()) {
            const headers = { authorization: `Bearer ${steady}` }
            const response = await fetch(`${here.url}${chat}`, { method: "POST", headers, body })
            await response.text()
            seen.calls++
            if (response.status !== 200) wrong.push(`a valid call got ${response.status}`)
          }
        }
        /** A request that must be refused. Nothing in it is a valid key alone. */
        const hostile = (): ReadonlyArray<string> => {
          const guess = pick([
            "",
            "fg-old",
            provider,
            sha256(steady),
            `${steady}x`,
            steady.slice(0, -1),
            steady.toUpperCase()
          ])
          const name = pick(["authorization", "Authorization", "X-API-KEY", "api-key", "x-goog-api-key"])
          const value = /auth/i.test(name) ? `${pick(["Bearer ", "bearer  ", "Basic ", ""])}${guess}` : guess
          return pick<ReadonlyArray<string>>([
            [`${name}: ${value}`],
            [`${name}: ${value}`, "connection: keep-alive, x-floodgate-key", "x-floodgate-key: steady"],
            [`authorization: Bearer ${steady}`, `x-api-key: hostile-${guess}`],
            [`authorization: Bearer ${steady}`, "authorization: Bearer hostile"],
            [`x-api-key: ${steady}, hostile`],
            [`cookie: key=${steady}`, `x-floodgate-token: ${steady}`],
            [`proxy-authorization: Bearer ${steady}`]
          ])
        }
        const attacker = async (): Promise<void> => {
          while (!isOver()) {
            const path = pick([
              chat,
              "/openai/v1/models",
              `${chat}?key=hostile`,
              `//v1/chat/%63ompletions`,
              "/metrics?key=hostile"
            ])
            const lines = hostile()
            const isOwn = path.startsWith("/metrics")
            const head = [`POST ${path} HTTP/1.1`, "host: gateway.test", "connection: close", ...lines]
            const text = await Effect.runPromise(
              Effect.scoped(
                Effect.gen(function* () {
                  const got = yield* dial(here.url, [...head, `content-length: ${body.length}`, "", body].join("\r\n"))
                  got.read()
                  return yield* Effect.promise(() => got.response)
                })
              )
            )
            seen.hostile++
            if (!/^HTTP\/1\.1 (?:401|403|400|404) /.test(text))
              wrong.push(`let in (${isOwn}): ${head.join(" | ")}: ${text.slice(0, 200)}`)
            if (text.includes(steady) || text.includes(provider)) wrong.push(`leaked: ${text}`)
          }
        }
        /** Opens a stream with a key, removes the key, and waits for the stream to end. */
        const turner = async (): Promise<void> => {
          while (!isOver()) {
            const old = turning
            const headers = { authorization: `Bearer ${old}` }
            const response = await fetch(`${here.url}${chat}`, {
              method: "POST",
              headers,
              body: JSON.stringify({ model: "m", stream: true, messages: [] })
            })
            const reader = response.body!.getReader()
            await reader.read()
            seen.streams++
            turning = keyOf()
            const from = performance.now()
            await Effect.runPromise(here.reload(optionsOf()))
            seen.reloads++
            await reader.read().then(
              ({ done }) => done || wrong.push("a stream of a removed key went on"),
              () => {}
            )
            seen.slowest = Math.max(seen.slowest, performance.now() - from)
            if (performance.now() - from > 5_000) wrong.push("a stream of a removed key ended late")
            const again = await fetch(`${here.url}${chat}`, { method: "POST", headers, body })
            await again.text()
            if (again.status !== 401) wrong.push(`a removed key got ${again.status}`)
            await sleep(20)
          }
        }
        yield* Effect.promise(() => Promise.all([loyal(), loyal(), attacker(), attacker(), turner()]))
        console.log(JSON.stringify({ ...seen, slowest: Math.round(seen.slowest), minutes }))
        assert.deepStrictEqual(wrong, [])
        assert.strictEqual(yield* here.inFlight, 0)
      }).pipe(Effect.scoped),
    900_000
  )
})
