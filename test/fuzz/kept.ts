/**
 * How the properties of this folder are run: few runs with a fixed seed in `npm test`, so that what passed once passes
 * again, and many with new seeds in `npm run test:soak`.
 *
 * A failure prints the input that it shrank to, and the token that replays it (`{ arbitrary: { replay } }`). The input is
 * kept as a plain test of what broke: in `test/`, where that part's tests are.
 *
 * Inputs are drawn from the grammar of what is read, not guided by coverage. Jazzer.js 4.0 was tried for that: it needs the
 * sources bundled into CommonJS, and 375,836 runs of the header parser (21 s) found nothing. It is no dependency.
 */
import type * as Arbitrary from "effect/Arbitrary"

export interface Effort {
  readonly runs: number
  /** Fixed in `npm test`; new each time in the soak. */
  readonly seed?: number
}

export const quick: Effort = { runs: 150, seed: 20_261_124 }
export const long: Effort = { runs: 10_000 }

export const options = (effort: Effort, share = 1): { readonly arbitrary: Arbitrary.CheckOptions } => ({
  arbitrary: { ...effort, runs: Math.max(20, Math.round(effort.runs * share)) }
})
