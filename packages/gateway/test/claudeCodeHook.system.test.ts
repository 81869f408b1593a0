/** The example of a hook for Claude Code, as Claude Code runs it: JSON on standard input, JSON on standard output. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { spawn } from "node:child_process"
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import * as Path from "node:path"
import { text } from "node:stream/consumers"
import { gatewayTo } from "../../../test/support/gateway.ts"
import { serve } from "../../../test/support/httpServer.ts"

const hook = Path.resolve(import.meta.dirname, "../../../examples/claude-code/before-sub-agent.mjs")
const limits = { tokens: { perSecond: 60_000, burst: 200_000 } }
const token = "0123456789abcdef"

/** What Claude Code 2.1 sends before it uses a tool. */
const input = (session: string) => ({
  session_id: session,
  transcript_path: "/tmp/transcript.jsonl",
  cwd: "/tmp",
  permission_mode: "default",
  hook_event_name: "PreToolUse",
  tool_name: "Task",
  tool_input: { description: "Review", prompt: "Review a.ts", subagent_type: "general-purpose" }
})

/** Each test has a folder for what hooks of a session share. */
const folder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(Path.join(tmpdir(), "floodgate-hook-"))),
  (folder) => Effect.sync(() => rmSync(folder, { recursive: true, force: true }))
)

/** Lets the advice of all sessions expire. */
const expire = (shared: string): void => {
  for (const name of readdirSync(shared)) {
    const file = Path.join(shared, name)
    writeFileSync(file, JSON.stringify({ ...JSON.parse(readFileSync(file, "utf8")), until: Date.now() - 1 }))
  }
}

const run = (env: Record<string, string>, session = "s1", ...args: ReadonlyArray<string>) =>
  Effect.promise(async () => {
    const child = spawn(process.execPath, [hook, ...args], { env: { PATH: process.env["PATH"] ?? "", ...env } })
    child.stdin.end(JSON.stringify(input(session)))
    const code = new Promise<number | null>((resolve) => child.on("close", resolve))
    const [out, err] = await Promise.all([text(child.stdout), text(child.stderr)])
    const said = out === "" ? undefined : (JSON.parse(out) as { hookSpecificOutput: Record<string, string> })
    return { code: await code, err, output: said?.hookSpecificOutput }
  })

/** Compiles what advice needs, at a gateway of its own: on a busy machine this takes longer than a hook waits. */
const compiled = Effect.fnUntraced(function* (upstream: string) {
  const { url } = yield* gatewayTo(upstream, { token }, limits)
  const headers = { "x-floodgate-token": token }
  const { status } = yield* Effect.promise(() => fetch(`${url}/floodgate/advice?asker=s0&like=s0/*`, { headers }))
  assert.strictEqual(status, 200)
})

describe("the hook for Claude Code", () => {
  it.live("tells the lead agent how many sub-agents help", () =>
    Effect.gen(function* () {
      const upstream = yield* serve((_, response) => void response.writeHead(500).end())
      yield* compiled(upstream.url)
      const { url } = yield* gatewayTo(upstream.url, { token }, limits)
      const env = { FLOODGATE_GATEWAY_URL: url, FLOODGATE_GATEWAY_TOKEN: token, TMPDIR: yield* folder }
      const { code, output } = yield* run(env)
      assert.strictEqual(code, 0)
      assert.strictEqual(output?.["hookEventName"], "PreToolUse")
      assert.match(
        output!["additionalContext"]!,
        /^Rate limits: \d+ more agents help; a further one adds [\d.]+ s, because tokens/
      )
      assert.isUndefined(output!["permissionDecision"])
      // All the room was promised to the first session, but nobody runs, so the next one may start an agent.
      const other = yield* run(env, "s2", "--wait")
      assert.match(other.output!["additionalContext"]!, /^Rate limits: 1 more agent helps/)
      assert.isUndefined(other.output!["permissionDecision"])
    })
  )

  it.live("lets sub-agents beyond the number that helps wait for a tenth of the time, and refuses none", () =>
    Effect.gen(function* () {
      const shared = yield* folder
      let questions = 0
      const advice = { agents: 3, endSeconds: 20, expiresAfterSeconds: 60, text: "3 more agents help." }
      const gateway = yield* serve((_, response) => {
        questions++
        response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(advice))
      })
      const env = { FLOODGATE_GATEWAY_URL: gateway.url, TMPDIR: shared }
      const began = Date.now()
      const all = yield* Effect.all(
        Array.from({ length: 6 }, () =>
          Effect.map(run(env, "s1", "--wait"), (answer) => ({ answer, millis: Date.now() - began }))
        ),
        { concurrency: "unbounded" }
      )
      assert.strictEqual(questions, 1)
      for (const { answer } of all) {
        assert.strictEqual(answer.output?.["additionalContext"], "Rate limits: 3 more agents help.")
        assert.isUndefined(answer.output?.["permissionDecision"])
      }
      // The other three have waited for two seconds.
      assert.isAtLeast(all.filter(({ millis }) => millis >= 2_000).length, 3)
      expire(shared)
      yield* run(env, "s1", "--wait")
      assert.strictEqual(questions, 2)
    })
  )

  it.live("asks a gateway that does not answer once, for a second, and lets all sub-agents start", () =>
    Effect.gen(function* () {
      let questions = 0
      const silent = yield* serve(() => void questions++)
      const env = { FLOODGATE_GATEWAY_URL: silent.url, TMPDIR: yield* folder }
      const all = yield* Effect.all(
        Array.from({ length: 4 }, () => run(env, "s1", "--wait")),
        { concurrency: "unbounded" }
      )
      assert.strictEqual(questions, 1)
      for (const each of all) {
        assert.deepInclude(each, { code: 0, output: undefined })
        assert.include(each.err, "Floodgate could not be asked")
      }
    })
  )

  it.live("never keeps a sub-agent from starting because of its own failure", () =>
    Effect.gen(function* () {
      const { url } = yield* Effect.scoped(serve(() => {}))
      const away = yield* run({ FLOODGATE_GATEWAY_URL: url, TMPDIR: yield* folder }, "s1", "--wait")
      assert.deepInclude(away, { code: 0, output: undefined })
      assert.include(away.err, "Floodgate could not be asked: ECONNREFUSED")
      const upstream = yield* serve((_, response) => void response.writeHead(500).end())
      const secret = yield* gatewayTo(upstream.url, { token }, limits)
      for (const wrong of [{}, { FLOODGATE_GATEWAY_TOKEN: "wrong-token-01234" }]) {
        const env = { FLOODGATE_GATEWAY_URL: secret.url, TMPDIR: yield* folder, ...wrong }
        const refused = yield* run(env, "s1", "--wait")
        assert.deepInclude(refused, { code: 0, output: undefined })
        assert.include(refused.err, "Floodgate could not be asked")
      }
    })
  )
})
