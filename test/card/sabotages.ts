/** A function of Effect that the library uses, and its replacement. */
export interface Sabotage {
  /** The beginning of the names of the tests that must fail. */
  readonly name: string
  readonly module: string
  /** The module in `sabotage/` that replaces it. */
  readonly file: string
}

export const sabotages: ReadonlyArray<Sabotage> = [
  { name: "Semaphore.takeIfAvailable", module: "effect/Semaphore", file: "takeIfAvailable.ts" },
  { name: "Ref", module: "effect/Ref", file: "ref.ts" },
  { name: "Schedule.jittered", module: "effect/Schedule", file: "jittered.ts" },
  { name: "Schedule.exponential", module: "effect/Schedule", file: "exponential.ts" }
]
