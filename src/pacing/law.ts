/**
 * The admission law: which calls may go out now, and what their answers teach. One file for each event:
 *
 * | event | file |
 * | --- | --- |
 * | a call asks to go out | `admit.ts` |
 * | it is accepted, and ends | `ends.ts` |
 * | a response has headers | `headers.ts` |
 * | a 429 | `rejections.ts` |
 * | a 529, another 5xx, a broken connection | `outage.ts` |
 * | the user sets limits | `limits.ts` |
 *
 * The user's limits and the queue are deterministic. They are in `src/admission`, which imports nothing from here. What is
 * learned of the provider is here: its buckets (`meter.ts`), the pauses and probes (`gate.ts`), the limit of calls in flight
 * (`window.ts`) and the tests that judge failures (`verdicts.ts`). The state of all of it is in `pacer.ts`.
 *
 * The law reacts in proportion to what it knows. An isolated rejection delays its own call and nothing else. If the bucket
 * was empty, the rate becomes what was delivered, and grows back. If nothing is accepted any more, the pool pauses, and
 * single calls probe when that is over.
 *
 * An event changes the pool that it is given, so it is played on a copy: `copy` is cheap. Nothing here reads a clock or
 * draws a random number; time is an argument.
 */
import * as Gate from "./gate.ts"
import type { Pacer } from "./pacer.ts"

export { make, resize } from "./limits.ts"
export { admit, decide, take } from "./admit.ts"
export { accept, adopt, keep, release, settle } from "./ends.ts"
export { observe, type Reading, type Readings } from "./headers.ts"
export { reject, type Rejection } from "./rejections.ts"
export { overload } from "./outage.ts"
export { copy, type Pacer, type Ticket } from "./pacer.ts"
export type { Verdict } from "./verdicts.ts"

/** Nothing goes out before `until`. Probes that are under way keep their reason. */
export const pause = (pacer: Pacer, reason: Gate.Gate["reason"], until: number): void => {
  pacer.gate = Gate.pause(pacer.gate, reason, until)
}
