/** When months begin, by dates that `Intl` writes and the rules of the calendar, without anything of the library. */

const millisOfDay = 86_400_000

const isLeap = (year: number): boolean => (year % 4 === 0 && year % 100 !== 0) || year % 400 === 0
const daysIn = (year: number, month: number): number =>
  month === 2 && isLeap(year) ? 29 : [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][month - 1]!

/** Writes the date of a time in a zone, such as `"2027-02-28"`. */
const dates = (zone: string): ((time: number) => string) => {
  const written = new Intl.DateTimeFormat("en-CA", {
    timeZone: zone,
    year: "numeric",
    month: "2-digit",
    day: "2-digit"
  })
  return (time) => written.format(time)
}

/** Whether a month begins on a date: on the stated day, or on the last one of a month without it. */
const begins = (date: string, day: number): boolean => {
  const [year = 0, month = 0, today = 0] = date.split("-").map(Number)
  return today === Math.min(day, daysIn(year, month))
}

/** The first moment after a time at which a month begins in a zone. */
export const nextMonth = (day: number, zone: string, now: number): number => {
  const dateAt = dates(zone)
  // A day lasts 23 hours or more where clocks change, so no date is left out.
  let before = now
  while (dateAt(before) === dateAt(before + millisOfDay / 3) || !begins(dateAt(before + millisOfDay / 3), day)) {
    before += millisOfDay / 3
  }
  let [earlier, later] = [before, before + millisOfDay / 3]
  const date = dateAt(later)
  while (later - earlier > 1) {
    const middle = Math.floor((earlier + later) / 2)
    if (dateAt(middle) === date) later = middle
    else earlier = middle
  }
  return later
}
