/**
 * The pacer, which is the law of a pool: which calls may be sent now, and what their answers teach. One file for each event:
 *
 * | event | file |
 * | --- | --- |
 * | a call asks to be sent | `admit.ts` |
 * | a call is accepted, or ends | `ends.ts` |
 * | a response has headers | `headers.ts` |
 * | a 429 | `rejections.ts` |
 * | a 529, another 5xx, a broken connection | `outage.ts` |
 * | the user sets limits | `limits.ts` |
 *
 * The user's limits and the queue are in `src/admission`. They are deterministic and import nothing from here. This folder has
 * what is learned of the provider: its buckets (`meter.ts`), pauses and probes (`gate.ts`), the limit of calls in flight
 * (`window.ts`, `full.ts`) and the tests that judge failures (`verdicts.ts`). The state of all of them is in `state.ts`.
 *
 * How many calls a server takes that never rejects one is measured by each process for itself, outside of the pacer (`measured.ts`).
 *
 * A pacer reacts in proportion to the evidence. An isolated rejection delays only its own call. If the bucket was empty, the
 * rate becomes what was delivered, and grows back. If nothing is accepted any more, the pool pauses, and single calls then
 * probe whether the cause is over.
 *
 * An event changes the pacer that it is given, so it is played on a copy, which is cheap. Nothing here reads a clock or draws
 * a random number; time is an argument.
 */
import * as Gate from "./gate.ts"
import type { Pacer } from "./state.ts"

export { make, resize } from "./limits.ts"
export { admit, decide, take } from "./admit.ts"
export { accept, adopt, type FailedCall, keep, owe, release, settle } from "./ends.ts"
export { observe, type Reading, type Readings } from "./headers.ts"
export { reject } from "./rejections.ts"
export { overload } from "./outage.ts"
export { type Admission, copy, isKeptFor, meterOf, type Pacer } from "./state.ts"
export type { Verdict } from "./verdicts.ts"

/** Pauses until `until`. Probes that are under way keep their reason. */
export const pause = (pacer: Pacer, reason: Gate.Gate["reason"], until: number): void => {
  pacer.gate = Gate.pause(pacer.gate, reason, until)
}
