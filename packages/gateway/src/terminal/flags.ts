/** Kinds of flags that several commands use. */
import * as Flag from "effect/cli/Flag"
import * as Duration from "effect/Duration"
import * as Option from "effect/Option"
import * as Words from "floodgate/internal/words"
import { durationInput } from "floodgate/internal"

/** A number within a range. Any other text gets the same error as a number outside of the range. */
export const number = (name: string, expected: string, holds: (value: number) => boolean): Flag.Flag<number> =>
  Flag.String(name).pipe(
    Flag.filterMap(
      (text) => Option.filter(Option.some(text.trim() === "" ? Number.NaN : Number(text)), holds),
      () => expected
    ),
    Flag.withMetavar("<n>")
  )

/** The library's own bound for limits, 2^53. */
const maxNumber = Number.MAX_SAFE_INTEGER
/** Smaller rates and factors are of no use, and results that are divided by them are unreadable. */
const minNumber = 0.001

/** A time in seconds, given as a number or as a duration such as "4 minutes". */
export const seconds = (name: string, upTo: number): Flag.Flag<number> =>
  Flag.String(name).pipe(
    Flag.filterMap(
      (text) => {
        const value = Number(text)
        const given = Duration.fromInput(Number.isNaN(value) ? durationInput(text) : Duration.seconds(value))
        return Option.filter(Option.map(given, Duration.toSeconds), (value) => value >= minNumber && value <= upTo)
      },
      () => `seconds from ${minNumber} to ${Words.thousands(upTo)}, or a duration such as "4 minutes"`
    ),
    Flag.withMetavar("<seconds>")
  )

/** A finite duration above zero. */
export const duration = (name: string): Flag.Flag<Duration.Duration> =>
  Flag.String(name).pipe(
    Flag.filterMap(
      (text) =>
        Option.filter(
          Duration.fromInput(durationInput(text)),
          (given) => Duration.isFinite(given) && Duration.toMillis(given) > 0
        ),
      () => 'a duration such as "10 minutes"'
    ),
    Flag.withMetavar("<duration>")
  )

/** A number above zero. */
export const positive = (name: string, upTo = maxNumber): Flag.Flag<number> =>
  number(
    name,
    upTo < maxNumber
      ? `a number from ${minNumber} to ${Words.thousands(upTo)}`
      : `a number from ${minNumber} up to 2^53`,
    (value) => value >= minNumber && value <= upTo
  )

/** A whole number above zero. */
export const count = (name: string, upTo = maxNumber): Flag.Flag<number> =>
  number(
    name,
    upTo < maxNumber ? `a whole number from 1 to ${Words.thousands(upTo)}` : "a whole number above 0",
    (value) => value > 0 && Number.isSafeInteger(value) && value <= upTo
  )

/** A number that is not below zero. */
export const atLeastZero = (name: string, upTo: number): Flag.Flag<number> =>
  number(name, `a number from 0 to ${Words.thousands(upTo)}`, (value) => value >= 0 && value <= upTo)

/** A day, which is longer than any simulated call. */
export const maxMillis = 86_400_000

/** More than any model writes in one answer. */
export const maxOutputTokens = 10_000_000

/** A description with a default, so that `--help` shows the default. */
export const byDefault =
  (text: string, value: string | number) =>
  <A extends string | number>(flag: Flag.Flag<A>): Flag.Flag<A> =>
    flag.pipe(Flag.withDescription(`${text} (default: ${value})`), Flag.withDefault(value as A))

/** A description of an optional flag. */
export const optional =
  (text: string) =>
  <A>(flag: Flag.Flag<A>): Flag.Flag<Option.Option<A>> =>
    flag.pipe(Flag.withDescription(text), Flag.optional)

/** An optional whole number above zero, and what applies without it. */
export const optionalCount = (name: string, text: string, unless: string): Flag.Flag<Option.Option<number>> =>
  count(name).pipe(optional(`${text} (default: ${unless})`))

/** A flag without a value, which is off by default. */
export const toggle = (name: string, text: string, alias?: string): Flag.Flag<boolean> => {
  const flag = Flag.Boolean(name).pipe(Flag.withDescription(text), Flag.withDefault(false))
  return alias === undefined ? flag : Flag.withAlias(flag, alias)
}

/** A text that is not blank. */
export const text = (name: string, expected: string): Flag.Flag<string> =>
  Flag.String(name).pipe(
    Flag.filter(
      (value) => value.trim() !== "",
      () => expected
    )
  )

/** A port to listen on. */
export const port = number(
  "port",
  "a port from 0 to 65535",
  (value) => Number.isInteger(value) && value >= 0 && value <= 65_535
)

/** A file to read. */
const file = (name: string, description: string): Flag.Flag<Option.Option<string>> =>
  text(name, "a file").pipe(Flag.withMetavar("<file>"), optional(description))

/** A trace of calls to read. */
export const trace = (description: string): Flag.Flag<Option.Option<string>> => file("trace", description)

/** A file of sessions to read. */
export const sessions = (description: string): Flag.Flag<Option.Option<string>> =>
  file(
    "sessions",
    `${description}: a recording of gateway --record, or CSV with session,path,pause,input,cached,output`
  )
