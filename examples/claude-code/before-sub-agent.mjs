// Tells the lead agent of Claude Code how many sub-agents help, before it starts one. A hook: docs/guides/how-many-agents.md
//     node before-sub-agent.mjs [--wait]
//
// It asks the gateway of FLOODGATE_GATEWAY_URL, with the token of FLOODGATE_GATEWAY_TOKEN. With --wait, no more sub-agents start
// than help, even if the lead agent starts many at once, and it hears when to try again. If no gateway answers, they start as usual.
import { createHash } from "node:crypto"
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { json } from "node:stream/consumers"
import { setTimeout as sleep } from "node:timers/promises"

const url = process.env.FLOODGATE_GATEWAY_URL ?? "http://127.0.0.1:8788"
const token = process.env.FLOODGATE_GATEWAY_TOKEN
const waits = process.argv.includes("--wait")

/** What Claude Code says of the tool that it is about to use. */
const { session_id: session = "unknown" } = await json(process.stdin)

const ask = async () => {
  // The gateway names sub-agents after their session. The lead agent does other work, and makes larger calls.
  const question = new URLSearchParams({ asker: session, like: `${session}/*` })
  const response = await fetch(`${url}/floodgate/advice?${question}`, {
    headers: token === undefined ? {} : { "x-floodgate-token": token },
    signal: AbortSignal.timeout(5_000)
  })
  const advice = await response.json()
  if (!response.ok) throw new Error(advice.error ?? response.statusText)
  return { ...advice, until: Date.now() + 1_000 * advice.expiresAfterSeconds }
}

// Claude Code starts the sub-agents of one message together, and this hook once for each. Those of a session share an advice until
// it expires, and take its places in turn. It is in a file, and a folder that only one process can make is the lock.
const file = join(tmpdir(), `floodgate-${createHash("sha256").update(`${url} ${session}`).digest("hex").slice(0, 16)}`)
const lock = `${file}.lock`

const locked = async (use) => {
  for (const began = Date.now(); ; await sleep(20)) {
    try {
      mkdirSync(lock)
      break
    } catch (error) {
      if (error.code !== "EEXIST") throw error
      // The process that made it has died.
      if (Date.now() > began + 8_000) rmSync(lock, { recursive: true, force: true })
    }
  }
  try {
    return await use()
  } finally {
    rmSync(lock, { recursive: true, force: true })
  }
}

const known = () => {
  try {
    return JSON.parse(readFileSync(file, "utf8"))
  } catch {
    return { until: 0 }
  }
}

/** If no sub-agent has started under one advice, one does under the next, so that the session never stands still. */
const after = ({ started = 1 }, advice) => ({
  ...advice,
  agents: Math.max(advice.agents, started === 0 ? 1 : 0),
  started: 0
})

/** Takes one of the advised starts. `started` of the result is the number of those that were taken before. */
const shared = () =>
  locked(async () => {
    const before = known()
    const advice = Date.now() < before.until ? before : after(before, await ask())
    const started = Math.min(advice.agents, advice.started + 1)
    writeFileSync(file, JSON.stringify({ ...advice, started }), { mode: 0o600 })
    return advice
  })

const refusalOf = ({ started, text, until }) => {
  const seconds = Math.max(1, Math.ceil((until - Date.now()) / 1_000))
  const why =
    started === 0
      ? text
      : `${started} more ${started === 1 ? "has" : "have"} just started, and no further one would help.`
  return `${why} Wait for ${seconds} s or until one ends, or go on without a sub-agent.`
}

try {
  const advice = await (waits ? shared() : ask())
  const answer =
    waits && advice.started >= advice.agents
      ? { permissionDecision: "deny", permissionDecisionReason: refusalOf(advice) }
      : { additionalContext: `Rate limits: ${advice.text}` }
  console.log(JSON.stringify({ hookSpecificOutput: { hookEventName: "PreToolUse", ...answer } }))
} catch (error) {
  // A hook that fails must not keep anybody from working.
  console.error(`Floodgate could not be asked: ${error.cause?.code ?? error.message}`)
}
