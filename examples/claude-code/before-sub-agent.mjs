// Tells the lead agent of Claude Code how many sub-agents help, before it starts one. A hook: docs/guides/how-many-agents.md
//     node before-sub-agent.mjs [--wait]
//
// It asks the gateway of FLOODGATE_GATEWAY_URL, with the token of FLOODGATE_GATEWAY_TOKEN. With --wait, a sub-agent that would
// not help is not started, and the lead agent hears when to try again. If no gateway answers, the sub-agent starts as usual.
import { json } from "node:stream/consumers"

const url = process.env.FLOODGATE_GATEWAY_URL ?? "http://127.0.0.1:8788"
const token = process.env.FLOODGATE_GATEWAY_TOKEN
const waits = process.argv.includes("--wait")

/** What Claude Code says of the tool that it is about to use. */
const { session_id: session = "unknown" } = await json(process.stdin)

try {
  const response = await fetch(`${url}/floodgate/advice?${new URLSearchParams({ asker: session })}`, {
    headers: token === undefined ? {} : { "x-floodgate-token": token },
    signal: AbortSignal.timeout(5_000)
  })
  const advice = await response.json()
  if (!response.ok) throw new Error(advice.error ?? response.statusText)
  const refused =
    waits && advice.agents === 0
      ? { permissionDecision: "deny", permissionDecisionReason: `${advice.text} Wait, or go on without a sub-agent.` }
      : { additionalContext: `Rate limits: ${advice.text}` }
  console.log(JSON.stringify({ hookSpecificOutput: { hookEventName: "PreToolUse", ...refused } }))
} catch (error) {
  // A hook that fails must not keep anybody from working.
  console.error(`Floodgate could not be asked: ${error.cause?.code ?? error.message}`)
}
