/** Answers questions about agents: how many help now, and what a workload would take. */
import * as Effect from "effect/Effect"
import type * as Agents from "floodgate/Agents"
import type * as Budget from "floodgate/Budget"
import type * as Schemas from "./endpointSchemas.ts"
import { Advise, AdviceFigures, Input, Advice } from "floodgate/internal"

/** An answer, and its status in HTTP. */
export interface AdviceResponse {
  readonly status: 200 | 400 | 404 | 503
  readonly body: unknown
}

const { numbers, texts } = AdviceFigures

const isText = (name: string): boolean => (texts as ReadonlyArray<string>).includes(name)

const known = Input.options<AdviceFigures.AdviceFigures>(
  Object.fromEntries([...texts, ...numbers].map((name) => [name, Input.anything])) as never
)

/** Reads a number. A text that is not a number remains, so that the error can show it. */
const numberOf = (text: string): unknown => (text.trim() === "" || Number.isNaN(Number(text)) ? text : Number(text))

/** The figures of a query. Throws if one is unknown. */
const figuresOf = (what: string, query: URLSearchParams): AdviceFigures.AdviceFigures => {
  const given = Object.fromEntries([...query].map(([name, text]) => [name, isText(name) ? text : numberOf(text)]))
  Input.check(what, known, given)
  return given
}

const failed = (status: 400 | 404 | 503, error: string): AdviceResponse => ({ status, body: { error } })

const reasoned = (thrown: unknown): Effect.Effect<AdviceResponse> =>
  thrown instanceof RangeError ? Effect.succeed(failed(400, thrown.message)) : Effect.die(thrown)

/**
 * Answers a question about agents: with advice, or with a forecast if all of them start now. Advice respects what is left in the
 * purses of its context.
 */
export const answerTo = (
  what: "advice" | "forecast",
  query: URLSearchParams
): Effect.Effect<AdviceResponse, never, Budget.TokenBudget> =>
  Effect.suspend(
    (): Effect.Effect<
      typeof Schemas.advice.Type | typeof Schemas.forecast.Type,
      Agents.PoolUnclear | Budget.BudgetError,
      Budget.TokenBudget
    > => {
      const question = AdviceFigures.questionOf(what, figuresOf(what, query))
      return what === "forecast"
        ? Advise.foretold(what, question)
        : Effect.map(Advise.advise(what, question), Advice.plain)
    }
  ).pipe(
    Effect.map((body): AdviceResponse => ({ status: 200, body })),
    Effect.catchTags({
      PoolUnclear: (error) => Effect.succeed(failed(error.isAmbiguous ? 400 : 404, error.message)),
      BudgetError: (error) => Effect.succeed(failed(503, error.message))
    }),
    Effect.catchDefect(reasoned)
  )
