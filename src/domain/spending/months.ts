/** Months that begin on a stated day, at midnight of a time zone, as pure functions. */
import * as DateTime from "effect/DateTime"
import * as Option from "effect/Option"

/** A month from one such day to the next. */
export interface Month {
  /** 1 to 31. In a month without that day, it begins on the last one. */
  readonly day: number
  /** An IANA time zone. */
  readonly zone: string
}

const form = /^month(?: from ([1-9]|[12]\d|3[01]))?(?: in (\S{1,64}))?$/

/** Reads `"month"`, `"month from 15"` or `"month from 15 in Europe/Berlin"`; undefined if it is neither, or there is no such zone. */
export const parse = (text: string): Month | undefined => {
  const found = form.exec(text)
  if (found === null) return undefined
  const [, day = "1", zone = "UTC"] = found
  return isZone(zone) ? { day: Number(day), zone } : undefined
}

/** Whether there is such a time zone. */
export const isZone = (zone: string): boolean => Option.isSome(DateTime.zoneMakeNamed(zone))

/** The words of a month, which {@link parse} reads. */
export const words = ({ day, zone }: Month): string =>
  `month${day === 1 ? "" : ` from ${day}`}${zone === "UTC" ? "" : ` in ${zone}`}`

/** When a month begins, in milliseconds since the epoch. `month` counts from 1, and may exceed 12. */
const beginOf = (year: number, month: number, { day, zone }: Month): number => {
  const days = new Date(Date.UTC(year, month, 0)).getUTCDate()
  const start = { year: year + Math.floor((month - 1) / 12), month: ((month + 11) % 12) + 1, day: Math.min(day, days) }
  // Where clocks are put forward at midnight, the day begins at one o'clock.
  return DateTime.makeZonedUnsafe(start, { timeZone: zone, adjustForTimeZone: true }).epochMilliseconds
}

/** The month that was asked for last of each kind, because calls ask for the same one. */
const latest = new Map<string, { readonly from: number; readonly until: number }>()
/** More kinds than the caps of a process have. */
const maxKinds = 100
/** The times that a date may have, less a year. */
const maxTime = 8.6e15

/** When the month ends that a time belongs to. */
export const endOf = (month: Month, now: number): number => {
  const key = `${month.day} ${month.zone}`
  const known = latest.get(key)
  if (known !== undefined && now >= known.from && now < known.until) return known.until
  const time = Math.min(Math.max(now, -maxTime), maxTime)
  const { month: number, year } = DateTime.toParts(DateTime.makeZonedUnsafe(time, { timeZone: month.zone }))
  const begins = [number - 1, number, number + 1].map((at) => beginOf(year, at, month))
  const until = begins.find((at) => at > time)!
  if (latest.size >= maxKinds) latest.clear()
  latest.set(key, { from: begins.findLast((at) => at <= time) ?? time, until })
  return until
}
