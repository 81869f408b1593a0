/** The confirmation before the first call that costs money. */
import * as Effect from "effect/Effect"
import * as Stdio from "effect/Stdio"
import * as Stream from "effect/Stream"
import * as Terminal from "effect/Terminal"
import * as Words from "floodgate/internal/words"
import * as Exit from "@floodgate/gateway/internal/exit"
import * as Print from "@floodgate/gateway/internal/print"
import { clean, wrap } from "@floodgate/gateway/internal/text"
import * as Cost from "./cost.ts"
import type { Plan } from "./plan.ts"

/** Asks for confirmation, and fails unless the answer is yes. */
export type Confirm = (plan: Plan) => Effect.Effect<void, Exit.CommandError>

/** Asks on standard error, because standard output is for the result. Fails with `otherwise` unless the answer is yes. */
export const ask = Effect.fnUntraced(function* (question: string, otherwise: string) {
  const stdio = yield* Stdio.Stdio
  const terminal = yield* Terminal.Terminal
  const room = yield* Print.Room
  const say = (text: string) => Effect.ignore(Stream.run(Stream.succeed(text), stdio.stderr({ endOnDone: false })))
  yield* say(wrap(clean(question), room.stderr))
  // Ctrl-C and Ctrl-D leave the cursor behind the question.
  const answer = yield* terminal.readLine.pipe(
    Effect.onError(() => say("\n")),
    Effect.orElseSucceed(() => "")
  )
  if (!/^\s*y(es)?\s*$/i.test(answer)) return yield* Exit.failure("failed", otherwise)
})

/** Asks before a run. */
export const onTerminal = (
  provider: string,
  { price }: Cost.Cost
): Effect.Effect<Confirm, never, Stdio.Stdio | Terminal.Terminal> =>
  Effect.map(
    Effect.context<Stdio.Stdio | Terminal.Terminal>(),
    (context) =>
      ({ calls, inputTokens, left, outputTokens }) => {
        const dollars = Cost.sumOf(price, left)
        const cost = dollars === undefined ? "" : `, ${Words.dollars(dollars)}`
        const tokens = `${Words.thousands(inputTokens)} input and ${Words.thousands(outputTokens)} output tokens`
        return ask(
          `Send this to ${provider} in ${Words.counted(calls, "call")}, at most about ${tokens}${cost}? [y/N] `,
          "nothing was sent. --dry-run shows what would be, --yes sends it without a question"
        ).pipe(Effect.provideContext(context))
      }
  )
