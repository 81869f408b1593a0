/**
 * How often the properties in this folder run: a few times with a fixed seed in `npm test`, so that a test that passed passes
 * again, and many times with new seeds in `npm run test:soak`.
 *
 * A failure prints the shrunk input and the token that replays it (`{ arbitrary: { replay } }`). Add the input as a plain
 * test beside the tests of the part that broke.
 *
 * Inputs are drawn from the grammar of what is read, without guidance by coverage. Jazzer.js 4.0 offers that, but needs the
 * sources bundled as CommonJS, and 375,836 runs of the header parser (21 s) found nothing.
 */
import type * as Arbitrary from "effect/Arbitrary"
import { sized } from "../support/size.ts"

export interface Effort {
  readonly runs: number
  /** Without a seed, each run draws new inputs. */
  readonly seed?: number
}

export const quick: Effort = { runs: sized(60, 150), seed: 20_261_124 }
export const long: Effort = { runs: 10_000 }

export const options = (effort: Effort, share = 1): { readonly arbitrary: Arbitrary.CheckOptions } => ({
  arbitrary: { ...effort, runs: Math.max(20, Math.round(effort.runs * share)) }
})
