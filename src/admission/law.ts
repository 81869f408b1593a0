/**
 * The admission law: what may go out now, and what an answer teaches. One file for each event.
 *
 * What the budget does to all callers is proportional to what it knows. A rejection is judged first: an isolated one
 * delays its own call and nothing else. An exhausted bucket sets the rate in use to what was delivered, which grows back.
 * Failures with nothing accepted between them pause the pool, and one call at a time finds out when that is over.
 *
 * A pool is mutable and has one owner. Nothing here reads a clock or draws a random number: time is an argument.
 */
import * as Gate from "./gate.ts"
import type { Pool } from "./state.ts"

export { make, resize } from "./limits.ts"
export { admit, type Blocked, decide, take } from "./admit.ts"
export { accept, adopt, keep, release, settle } from "./ends.ts"
export { observe, type Reading, type Readings } from "./headers.ts"
export { reject, type Rejection } from "./rejections.ts"
export { overload } from "./outage.ts"
export { copy, type Pool, preview, type Ticket } from "./state.ts"
export type { Verdict } from "./verdicts.ts"

/** Nothing goes out before a time. Probes that are under way keep their reason. */
export const pause = (pool: Pool, reason: Gate.Gate["reason"], until: number): void => {
  pool.gate = Gate.pause(pool.gate, reason, until)
}
