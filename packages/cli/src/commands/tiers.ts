/** The limits that a command compares where none are given. */
import type * as Limits from "floodgate/Limits"
import * as Presets from "floodgate/Presets"

/** Limits by name. */
export interface Tier {
  readonly name: string
  readonly limits: Limits.Limits
}

const { build, scale, start } = Presets.anthropic

/** Anthropic's usage tiers for its Opus, Sonnet and Haiku models, the smallest first. `Presets` has their date and source. */
export const anthropic: ReadonlyArray<Tier> = [
  { name: "Start", limits: start.pools["sonnet-5"]! },
  { name: "Build", limits: build.pools["sonnet-5"]! },
  { name: "Scale", limits: scale.pools["sonnet-5"]! }
]
