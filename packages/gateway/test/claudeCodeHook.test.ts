/** The example of a hook for Claude Code, as Claude Code runs it: JSON on standard input, JSON on standard output. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { spawn } from "node:child_process"
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
      const env = { FLOODGATE_GATEWAY_URL: url, FLOODGATE_GATEWAY_TOKEN: token }
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
        /^No more agents help now, because tokens are the limit.*Ask again in/
      )
      const told = yield* run(env, "s2")
      assert.match(told.output!["additionalContext"]!, /^Rate limits: No more agents help now/)
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
