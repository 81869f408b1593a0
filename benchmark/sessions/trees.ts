/** How full the caps of jobs get in recorded sessions, each of which is a job, and whether a cap refuses anything. */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Budget from "floodgate/Budget"
import * as Governor from "floodgate/Governor"
import { type Sessions, Simulation } from "floodgate/testing"
import * as Trees from "floodgate/Trees"

/** Caps that a team may choose which knows nothing of these sessions, as in the guide, with those on spending. */
export const generous = { agents: 40, atOnce: 16, perHour: 60, depth: 2, tokens: 1e8, dollars: 200, calls: 2_000 }

type Cap = keyof typeof generous

export interface Played {
  readonly jobs: number
  readonly subAgents: number
  readonly calls: number
  /** Why calls were refused. */
  readonly refused: ReadonlyArray<string>
  /** The most that any job has used of each cap, at any call. */
  readonly used: Readonly<Record<Cap, number>>
}

/** Where `max_tokens` is stated as Claude Code does. */
const maxTokens = 32_000
const model = "claude-sonnet-5"

/** Plays sessions with their recorded pauses before a provider that answers at 60 tokens a second, and limits nothing. */
export const play = async (sessions: ReadonlyArray<Sessions.Session>, caps: Trees.JobCaps): Promise<Played> => {
  const refused: Array<string> = []
  const used = { agents: 0, atOnce: 0, perHour: 0, depth: 0, tokens: 0, dollars: 0, calls: 0 }
  let calls = 0
  let subAgents = 0
  const note = (tree: Trees.Tree): Effect.Effect<void> =>
    Effect.map(tree.status, ({ spent, ...status }) => {
      for (const cap of ["agents", "atOnce", "perHour", "depth"] as const) used[cap] = Math.max(used[cap], status[cap])
      for (const cap of ["tokens", "dollars", "calls"] as const) used[cap] = Math.max(used[cap], spent[cap] ?? 0)
    })
  const agent = (
    tree: Trees.Tree,
    { path, turns }: Sessions.SessionAgent,
    parent?: string
  ): Effect.Effect<void, never, Governor.Governor> =>
    Effect.forEach(
      turns,
      ({ cachedTokens, inputTokens, outputTokens, pauseMillis, subAgents: started }) =>
        Effect.gen(function* () {
          yield* Effect.sleep(pauseMillis)
          calls++
          const actual = { inputTokens: inputTokens - cachedTokens, cacheReadTokens: cachedTokens, outputTokens }
          const answered = Effect.as(Effect.sleep((outputTokens / 60) * 1_000), { value: "", actual })
          const governor = yield* Governor.Governor
          yield* governor
            .run({ model, bytes: 4 * inputTokens, inputTokens, maxTokens }, () => answered)
            .pipe(
              Trees.within(tree, { agent: path, parent }),
              Effect.catch(({ message }) => Effect.sync(() => void refused.push(message)))
            )
          yield* note(tree)
          subAgents += started.length
          yield* Effect.forEach(started, (each) => agent(tree, each, path), { concurrency: "unbounded" })
        }),
      { discard: true }
    )
  const all = Effect.forEach(sessions, ({ lead, name }) => agent(Trees.make(`session ${name}`, caps), lead), {
    concurrency: "unbounded",
    discard: true
  }).pipe(Effect.provide(Governor.layer().pipe(Layer.provide(Budget.layerUnlimited))))
  await Effect.runPromise(Simulation.run(all))
  return { jobs: sessions.length, subAgents, calls, refused, used }
}
