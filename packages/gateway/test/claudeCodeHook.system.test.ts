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

describe("the hook for Claude Code", () => {
  it.live("tells the lead agent how many sub-agents help", () =>
    Effect.gen(function* () {
      const upstream = yield* serve((_, response) => void response.writeHead(500).end())
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
      // All the room was promised to the first session.
      const other = yield* run(env, "s2", "--wait")
      assert.strictEqual(other.output?.["permissionDecision"], "deny")
      assert.match(
        other.output!["permissionDecisionReason"]!,
        /^No more agents help now, because tokens are the limit.*Wait for \d+ s/
      )
      // None has started under that advice, so one does under the next.
      expire(env.TMPDIR)
      assert.isUndefined((yield* run(env, "s2", "--wait")).output?.["permissionDecision"])
      assert.strictEqual((yield* run(env, "s2", "--wait")).output?.["permissionDecision"], "deny")
      const told = yield* run(env, "s2")
      assert.match(told.output!["additionalContext"]!, /^Rate limits: No more agents help now/)
    })
  )

  it.live("starts no more sub-agents of one message than help, and others when the advice has expired", () =>
    Effect.gen(function* () {
      const upstream = yield* serve((_, response) => void response.writeHead(500).end())
      const { url } = yield* gatewayTo(upstream.url, {}, { tokens: { perSecond: 6_000, burst: 20_000 } })
      const shared = yield* folder
      const env = { FLOODGATE_GATEWAY_URL: url, TMPDIR: shared }
      const startedOf = Effect.map(
        Effect.all(
          Array.from({ length: 8 }, () => run(env, "s1", "--wait")),
          { concurrency: "unbounded" }
        ),
        (all) => all.filter(({ output }) => output!["permissionDecision"] === undefined).length
      )
      const answer = yield* Effect.promise(async () => (await fetch(`${url}/floodgate/advice`)).json())
      const { agents } = answer as { agents: number }
      assert.isAbove(agents, 1)
      assert.isBelow(agents, 8)
      assert.strictEqual(yield* startedOf, agents)
      assert.strictEqual(yield* startedOf, 0)
      const denied = yield* run(env, "s1", "--wait")
      const reason = denied.output!["permissionDecisionReason"]!
      assert.match(
        reason,
        /^\d+ more have just started, and no further one would help\. Wait for \d+ s or until one ends/
      )
      expire(shared)
      assert.strictEqual(yield* startedOf, agents)
    })
  )

  it.live("never keeps a sub-agent from starting because of its own failure", () =>
    Effect.gen(function* () {
      const { url } = yield* Effect.scoped(serve(() => {}))
      const away = yield* run({ FLOODGATE_GATEWAY_URL: url }, "s1", "--wait")
      assert.deepInclude(away, { code: 0, output: undefined })
      assert.include(away.err, "Floodgate could not be asked: ECONNREFUSED")
      const upstream = yield* serve((_, response) => void response.writeHead(500).end())
      const secret = yield* gatewayTo(upstream.url, { token }, limits)
      const refused = yield* run({ FLOODGATE_GATEWAY_URL: secret.url }, "s1", "--wait")
      assert.deepInclude(refused, { code: 0, output: undefined })
      assert.include(refused.err, "Floodgate could not be asked")
    })
  )
})
