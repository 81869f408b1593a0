/** The report of `floodgate forecast`. */
import * as Duration from "effect/Duration"
import { Report } from "@floodgate/lab/internal"
import * as Words from "floodgate/internal/words"
import * as Printed from "./printed.ts"

/** The summary at the head of a report. */
const verdictOf = (printed: Printed.Printed): Report.Verdict.Headline => {
  const { answers } = printed
  const possible = answers.filter((answer) => Printed.misfitOf(answer) === undefined)
  const under = (tier: string): string => (printed.limits === undefined ? tier : `the limits ${tier}`)
  const takes = possible.map(({ forecast, tier }) => `${Printed.span(forecast.duration)} under ${under(tier)}`)
  const how =
    takes.length === 0
      ? "Never done under these limits: some calls are too large for them."
      : `Takes ${takes.join(", ")}.`
  return {
    text: [Printed.met(printed), how].filter((sentence) => sentence !== undefined).join(" "),
    tiles: [
      ...answers.map((answer): Report.Verdict.Tile => {
        const { forecast, tier } = answer
        const misfit = Printed.misfitOf(answer)
        const binding = Printed.names[misfit?.dimension ?? forecast.binding]
        if (misfit !== undefined) return { value: "never", label: `${tier}; too small: ${binding}`, tone: "bad" }
        const tile = { value: Printed.span(forecast.duration), label: `${tier}; what binds: ${binding}` }
        if (printed.deadline === undefined) return tile
        const isInTime = Duration.isLessThanOrEqualTo(forecast.duration, printed.deadline.duration)
        return { ...tile, tone: isInTime ? "good" : "bad" }
      }),
      Report.Verdict.tokensTile(answers[0]!.forecast.usage.tokens, "tokens in all"),
      ...printed.costs.flatMap(({ dollars, model }) =>
        dollars === undefined
          ? []
          : [
              {
                value: Words.dollars(dollars),
                label: `with ${model}, ${printed.sessions === undefined ? "nothing cached" : "cache as recorded"}`
              }
            ]
      )
    ]
  }
}

/** The report as one HTML file. */
export const html = (printed: Printed.Printed, provenance: Report.Html.Options["provenance"]): string => {
  const { answers } = printed
  const section = Report.Forecast.section({
    summary: Printed.summaryOf(printed),
    verdict: verdictOf(printed),
    answers,
    heads: Printed.heads,
    rows: Printed.rowsOf(answers),
    notes: [...Printed.refusals(answers).map((refusal) => `${refusal}.`), ...Printed.sessionNotes(printed)]
  })
  const intro = "How long a workload takes, predicted before it runs."
  return Report.Html.render({ title: "floodgate forecast", intro, sections: [section], provenance })
}
