/** The MCP server as a process, spoken to in lines of JSON, as every client does over stdio. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { spawn } from "node:child_process"
import * as Path from "node:path"
import * as Readline from "node:readline"
import { gatewayTo } from "../../../../test/support/gateway.ts"
import { serve } from "../../../../test/support/httpServer.ts"

const bin = Path.resolve(import.meta.dirname, "../../src/bin.ts")
const limits = { tokens: { perSecond: 60_000, burst: 200_000 } }
const incident = { agents: 104, calls: 5, firstInputTokens: 149_800, inputTokens: 13_800, outputTokens: 200 }
/** An address at which nothing listens any more. */
const deserted = Effect.map(Effect.scoped(serve(() => {})), ({ url }) => url)

const told = ["--tokens-per-second", "60000", "--burst", "200000"]

const Result = Schema.Struct({
  content: Schema.Array(Schema.Struct({ text: Schema.String })),
  isError: Schema.optional(Schema.Boolean),
  structuredContent: Schema.optional(Schema.Record(Schema.String, Schema.Unknown))
})

/** A client of a server process, which ends with the test. */
const client = (args: ReadonlyArray<string>, env: Record<string, string> = {}) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const child = spawn(process.execPath, ["--conditions=@floodgate/source", bin, "mcp", ...args], {
        env: { PATH: process.env["PATH"] ?? "", NODE_COMPILE_CACHE: process.env["NODE_COMPILE_CACHE"] ?? "", ...env },
        stdio: ["pipe", "pipe", "inherit"]
      })
      const answers = new Map<number, (message: unknown) => void>()
      Readline.createInterface({ input: child.stdout }).on("line", (line) => {
        const message = JSON.parse(line) as { readonly id?: number }
        answers.get(message.id ?? 0)?.(message)
      })
      const ended = new Promise<number | null>((resolve) => child.on("close", resolve))
      let id = 0
      const send = (message: object) => child.stdin.write(`${JSON.stringify({ jsonrpc: "2.0", ...message })}\n`)
      const request = (method: string, params: object = {}) =>
        new Promise<{ readonly result: unknown }>((resolve) => {
          answers.set(++id, resolve as never)
          send({ id, method, params })
        })
      const clientInfo = { name: "test", version: "1" }
      await request("initialize", { protocolVersion: "2025-06-18", capabilities: {}, clientInfo })
      send({ method: "notifications/initialized" })
      const call = async (name: string, params: object = {}) => {
        const { result } = await request("tools/call", { name, arguments: params })
        return Schema.decodeUnknownSync(Result)(result)
      }
      return { call, child, ended, request }
    }),
    ({ child }) => Effect.sync(() => child.kill("SIGKILL"))
  )

const textOf = ({ content }: typeof Result.Type): string => content[0]!.text

describe("floodgate mcp", () => {
  it.live("asks the gateway, and promises the same room to one server only", () =>
    Effect.gen(function* () {
      const upstream = yield* serve((_, response) => void response.writeHead(500).end())
      const { url } = yield* gatewayTo(upstream.url, { token: "0123456789abcdef" }, limits)
      const env = { FLOODGATE_GATEWAY_TOKEN: "0123456789abcdef" }
      const [one, two] = yield* Effect.all([client(["--gateway", url], env), client(["--gateway", url], env)], {
        concurrency: 2
      })
      yield* Effect.promise(async () => {
        const first = await one.call("advise", incident)
        const { details, source, text } = first.structuredContent as Record<string, unknown>
        assert.match(String(text), /^Start 5 of 104 agents now: .*because tokens are the limit/)
        assert.strictEqual(source, `the gateway at ${url}`)
        assert.deepInclude(details, { agents: 5, job: 104 })
        assert.match(textOf(await two.call("advise", incident)), /Start 1 of 104/)
        assert.match(
          textOf(await one.call("forecast", { ...incident, agents: 12 })),
          /If 12 agents start now, all end in/
        )
        assert.match(textOf(await one.call("status")), /No call was made yet\./)
      })
    })
  )

  it.live("says so if no gateway answers, and uses the stated limits", () =>
    Effect.gen(function* () {
      const { call, child, ended, request } = yield* client(["--gateway", yield* deserted, ...told])
      yield* Effect.promise(async () => {
        const { result } = await request("tools/list")
        const { tools } = result as { tools: ReadonlyArray<{ name: string; annotations: { readOnlyHint: boolean } }> }
        assert.deepStrictEqual(tools.map(({ name }) => name).sort(), ["advise", "forecast", "status"])
        assert.isTrue(tools.every(({ annotations }) => annotations.readOnlyHint))
        assert.match(
          textOf(await call("advise", incident)),
          /No gateway answers, so this assumes the stated limits \(60,000 tokens\/s.*Start 5 of 104 agents now/
        )
        const invalid = await call("advise", { agents: 0 })
        assert.isTrue(invalid.isError)
        assert.strictEqual(textOf(invalid), "advice: agents: expected an integer from 1 to 10000, got 0")
        assert.isNotTrue((await call("advise", { agents: null, like: null })).isError)
        assert.match(textOf(await call("status")), /Pool default: 0 calls run and 0 wait\./)
        child.stdin.end()
        assert.strictEqual(await ended, 0)
      })
    })
  )

  it.live("says what it assumes without a gateway and without limits", () =>
    Effect.gen(function* () {
      const { call } = yield* client(["--gateway", yield* deserted])
      const answer = yield* Effect.promise(() => call("advise", { agents: 12 }))
      assert.match(
        textOf(answer),
        /so this assumes no limits \(none are stated\).*Start 1 agent now.*No limit of this pool is known/
      )
    })
  )
})
