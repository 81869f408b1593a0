/** A part that TokenBudget and LlmClient rely on, its replacement, and what must fail then. Other tests may fail, too. */
export interface Sabotage {
  readonly name: string
  /** What it does wrong. */
  readonly wrong: string
  readonly module: string
  /** The module in `sabotage/` that replaces it. */
  readonly file: string
  /** The tests that must fail. */
  readonly fails: ReadonlyArray<string>
}

export const sabotages: ReadonlyArray<Sabotage> = [
  {
    name: "Semaphore.takeIfAvailable",
    wrong: "always answers true",
    module: "effect/Semaphore",
    file: "takeIfAvailable.ts",
    fails: [
      "Semaphore.takeIfAvailable decides how many calls are in flight",
      "Semaphore.takeIfAvailable decides after a resize, too"
    ]
  },
  {
    name: "Semaphore.release",
    wrong: "keeps the permits",
    module: "effect/Semaphore",
    file: "release.ts",
    fails: ["Semaphore.release gives back the permits of ended calls"]
  },
  {
    name: "Ref.set",
    wrong: "drops every write",
    module: "effect/Ref",
    file: "ref.ts",
    fails: [
      "Ref: a budget admits no more than its limit",
      "Ref: status reads what calls have taken",
      "Ref: changes read what calls have taken",
      "Ref: learned reads what headers have said"
    ]
  },
  {
    name: "Schedule.jittered",
    wrong: "returns its input",
    module: "effect/Schedule",
    file: "jittered.ts",
    fails: [
      "Schedule.jittered spreads the waits of the default policy by a fifth down and up",
      "Schedule.jittered spreads the waits of a governed call by a fifth down and up",
      "Schedule.jittered lets no two of many calls that failed together return together"
    ]
  },
  {
    name: "Schedule.exponential",
    wrong: "is constant",
    module: "effect/Schedule",
    file: "exponential.ts",
    fails: [
      "Schedule.exponential doubles the waits of the default policy, from 2 s",
      "Schedule.exponential doubles the waits of a governed call",
      "Schedule.exponential doubles the waits after rate limits, up to 60 s"
    ]
  },
  {
    name: "LlmClient",
    wrong: "ignores its policy",
    module: "floodgate/LlmClient",
    file: "llmClient.ts",
    fails: [
      "LlmClient sends two requests by a policy of two attempts",
      "LlmClient sends when the backoff of its policy says",
      "LlmClient sends two requests through the SDK, too, by a policy of two attempts"
    ]
  }
]
