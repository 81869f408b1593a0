/** The limits that commands compare by default. */
import type * as Limits from "floodgate/Limits"
import * as Presets from "floodgate/Presets"

/** Limits with a name. */
export interface Tier {
  readonly name: string
  readonly limits: Limits.Limits
  /** The limit on an organisation's spending in a month, in dollars. @default unknown */
  readonly monthly?: number | undefined
}

const { build, scale, start } = Presets.anthropic

/**
 * Anthropic's usage tiers for its Opus, Sonnet and Haiku models, the smallest first. `Presets` has their date and source, which also
 * states the spend limits.
 */
export const anthropic: ReadonlyArray<Tier> = [
  { name: "Start", limits: start.pools["sonnet-5"]!, monthly: 500 },
  { name: "Build", limits: build.pools["sonnet-5"]!, monthly: 1_000 },
  { name: "Scale", limits: scale.pools["sonnet-5"]!, monthly: 200_000 }
]
