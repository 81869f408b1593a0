/** What of Effect the card says that the library stands on, and what becomes of it. */
export interface Sabotage {
  /** The tests whose names begin with it must notice. */
  readonly name: string
  readonly module: string
  /** What takes the module's place, in `sabotage/`. */
  readonly file: string
}

export const sabotages: ReadonlyArray<Sabotage> = [
  { name: "Semaphore.takeIfAvailable", module: "effect/Semaphore", file: "takeIfAvailable.ts" },
  { name: "Ref", module: "effect/Ref", file: "ref.ts" },
  { name: "Schedule.jittered", module: "effect/Schedule", file: "jittered.ts" },
  { name: "Schedule.exponential", module: "effect/Schedule", file: "exponential.ts" }
]
