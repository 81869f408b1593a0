// Tells the lead agent of Claude Code how many sub-agents help, before it starts one. A hook: docs/guides/how-many-agents.md
//     node before-sub-agent.mjs [--wait]
//
// It asks the gateway of FLOODGATE_GATEWAY_URL, with the token of FLOODGATE_GATEWAY_TOKEN. With --wait, a sub-agent beyond the number
// that helps waits here for its turn, for at most a tenth of the time that the work takes: a refusal would cost a call of the lead
// agent, which is dearer than a start that comes too early. If no gateway answers, sub-agents start at once.
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

/** Claude Code waits for this hook, so a gateway that does not answer may cost no more than this. */
const timeout = 1_000

const ask = async () => {
  // The gateway names sub-agents after their session. The lead agent does other work, and makes larger calls.
  const question = new URLSearchParams({ asker: session, like: `${session}/*` })
  const response = await fetch(`${url}/floodgate/advice?${question}`, {
    headers: token === undefined ? {} : { "x-floodgate-token": token },
    signal: AbortSignal.timeout(timeout)
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
      if (Date.now() > began + 2 * timeout) rmSync(lock, { recursive: true, force: true })
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

/** Asks. For ten seconds after a failure, other sub-agents do not ask again, and start at once. */
const asked = () =>
  ask().catch((error) => ({ failed: error.cause?.code ?? error.message, until: Date.now() + 10_000, agents: Infinity }))

/** Takes one of the advised starts. Undefined if there is none left under this advice. */
const turn = () =>
  locked(async () => {
    const before = known()
    const advice = Date.now() < before.until ? before : { ...(await asked()), started: 0 }
    const isTurn = advice.failed !== undefined || advice.started < advice.agents
    writeFileSync(file, JSON.stringify({ ...advice, started: advice.started + (isTurn ? 1 : 0) }), { mode: 0o600 })
    return { advice, isTurn }
  })

/** A sub-agent waits for at most this part of the time that the advised ones take, and no longer than hooks may take. */
const maxShare = 0.1
const longestWait = 20_000

const waited = async () => {
  const began = Date.now()
  let most
  for (;;) {
    const { advice, isTurn } = await turn()
    most ??= Math.min(longestWait, maxShare * 1_000 * (advice.endSeconds ?? 0))
    const left = began + most - Date.now()
    if (isTurn || left <= 0) return advice
    await sleep(Math.max(20, Math.min(left, advice.until - Date.now())))
  }
}

try {
  const advice = await (waits ? waited() : ask())
  if (advice.failed !== undefined) throw new Error(advice.failed)
  const hookSpecificOutput = { hookEventName: "PreToolUse", additionalContext: `Rate limits: ${advice.text}` }
  console.log(JSON.stringify({ hookSpecificOutput }))
} catch (error) {
  // A hook that fails must not keep anybody from working.
  console.error(`Floodgate could not be asked: ${error.cause?.code ?? error.message}`)
}
