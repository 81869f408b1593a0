/**
 * How many agents help if their calls go to several places. Each place forecasts only its part of the agents, and the agents are
 * divided so that the last one ends as early as possible.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { sumAll } from "effect/Number"
import type * as Amounts from "../domain/amounts.ts"
import { counted } from "../domain/words.ts"
import * as Advice from "./advice.ts"
import type { Advice as AdviceModel, CapRoom } from "./models.ts"

/** A place of the agents' calls, or the one pool where they all go. */
export interface AskedPlace<E> {
  readonly name: string
  readonly pool: string
  readonly running: number
  readonly foretell: Advice.Foretell<E>
  /** Whether a limit of its pool is known. */
  readonly isKnown: boolean
  readonly isWaiting: boolean
  /** Whether none of the asker's agents runs, and no call is in flight or waits there. */
  readonly isIdle: boolean
  /** How long it takes no calls. */
  readonly restsFor: number
  /** The room in the long windows of its account. */
  readonly windows: ReadonlyArray<CapRoom>
}

/** Computes when the last of some agents ends, in milliseconds, if all start now. Infinite if there is no room for all of them. */
type EndOf<E> = (agents: number) => Effect.Effect<number, E>

const endOf = <E>({ foretell, isKnown, isWaiting, running, windows }: AskedPlace<E>): EndOf<E> => {
  const known = new Map([[0, 0]])
  const tries = isKnown ? Infinity : Advice.triableNumber(running, isWaiting)
  const max = windows.reduce((min, { agents }) => Math.min(min, agents), tries)
  return Effect.fnUntraced(function* (agents) {
    const before = known.get(agents)
    if (before !== undefined) return before
    if (agents > max) return Infinity
    const { duration, refused } = yield* foretell(agents, Infinity)
    const end = refused.length > 0 ? Infinity : Duration.toMillis(duration)
    known.set(agents, end)
    return end
  })
}

/** A division has about this many steps, each of which takes a forecast. */
const steps = 64

/**
 * The number of agents that go to each place. Each further agent goes to the place whose part then ends earliest, so the latest end is as
 * early as possible. Agents for which no place has room are left out.
 */
const divided = Effect.fnUntraced(function* <E>(ends: ReadonlyArray<EndOf<E>>, agents: number) {
  if (ends.length === 1 && (yield* ends[0]!(agents)) < Infinity) return [agents]
  const shares = ends.map(() => 0)
  let step = Math.ceil(agents / steps)
  for (let left = agents; left > 0 && step > 0;) {
    step = Math.min(step, left)
    const next = yield* Effect.forEach(ends, (end, index) => end(shares[index]! + step))
    const soonest = Math.min(...next)
    if (soonest === Infinity) {
      step = Math.floor(step / 2)
      continue
    }
    shares[next.indexOf(soonest)]! += step
    left -= step
  }
  return shares
})

/** The number of agents that go to each place if each takes at most a given number. */
const dividedWithin = <E>(max: ReadonlyArray<number>, ends: ReadonlyArray<EndOf<E>>, agents: number) =>
  divided(
    ends.map(
      (end, index): EndOf<E> =>
        (count) =>
          count > max[index]! ? Effect.succeed(Infinity) : end(count)
    ),
    agents
  )

/** The advice for one place. */
interface AdvisedPart {
  readonly atOnce: number
  readonly helps: number
  readonly end: number
  /** How many agents the search looked at; undefined if no limit of the place is known. */
  readonly searched: number | undefined
  readonly expiresAfter: Duration.Duration
}

/** Advises how many agents of a place to start. Without a share, as many as help. */
const partOf = Effect.fnUntraced(function* <E>(
  question: Advice.Question,
  place: AskedPlace<E>,
  end: EndOf<E>,
  share: number | undefined
): Effect.fn.Return<AdvisedPart | undefined, E> {
  const { foretell, isKnown, isWaiting, running, windows } = place
  if (share === 0 || windows.some(({ agents }) => agents === 0)) return undefined
  const asked = { ...question, running, agents: share }
  if (!isKnown) {
    const { whole, ...tried } = yield* Advice.triable(asked, isWaiting, foretell)
    return { ...tried, end: Duration.toMillis(whole.duration), searched: undefined }
  }
  if ((yield* end(1)) === Infinity) return undefined
  const { searched, whole, ...helpful } = yield* Advice.helpful(asked, foretell)
  if (share === undefined && (yield* end(searched)) === Infinity) {
    const tooMany = yield* Advice.smallest(searched, (count) => Effect.map(end(count), (millis) => millis === Infinity))
    return yield* partOf(question, place, end, tooMany - 1)
  }
  return { ...helpful, end: Duration.toMillis(whole.duration), searched }
})

/** The parts of all places; undefined for those that get no agents. */
const partsOf = Effect.fnUntraced(function* <E>(question: Advice.Question, places: ReadonlyArray<AskedPlace<E>>) {
  const ends = places.map(endOf)
  const { agents } = question
  const shares = agents === undefined ? undefined : yield* divided(ends, agents)
  const left = shares === undefined ? 0 : agents! - sumAll(shares)
  // A place without a known limit may have more room than it seems, so agents that fit nowhere wait there.
  const isOpen = ({ isKnown, windows }: AskedPlace<E>) => !isKnown && windows.every(({ agents }) => agents > 0)
  const open = places.filter(isOpen).length
  const parts = yield* Effect.forEach(places, (place, index) => {
    const share = shares && shares[index]! + (isOpen(place) ? Math.ceil(left / open) : 0)
    return partOf(question, place, ends[index]!, share)
  })
  return { ends, parts, unplaced: open === 0 ? left : 0 }
})

/** While other places take calls, agents for a place that takes none do not help yet. They still count for the end of the job. */
const later = (part: AdvisedPart, { restsFor, running }: AskedPlace<unknown>): AdvisedPart => {
  const expires = Math.min(restsFor, Duration.toMillis(part.expiresAfter))
  return { ...part, atOnce: running, helps: 0, expiresAfter: Duration.millis(Math.ceil(expires)) }
}

/** Where nobody runs, one agent helps, whatever others were advised to start. */
const withOne = (
  parts: ReadonlyArray<AdvisedPart | undefined>,
  places: ReadonlyArray<AskedPlace<unknown>>
): ReadonlyArray<AdvisedPart | undefined> => {
  const isOne = places.every(({ isIdle }) => isIdle) && !parts.some((part) => part !== undefined && part.helps > 0)
  if (!isOne) return parts
  const first = parts.findIndex((part) => part !== undefined)
  return parts.map((part, index) =>
    part === undefined || index !== first ? part : { ...part, helps: 1, atOnce: part.atOnce + 1 }
  )
}

/** The number of agents that help in all, and at each place. */
export const helpful = Effect.fnUntraced(function* <E>(
  question: Advice.Question,
  places: ReadonlyArray<AskedPlace<E>>
) {
  const { ends, parts: all, unplaced } = yield* partsOf(question, places)
  const rests = ({ restsFor }: AskedPlace<E>): boolean => restsFor >= Advice.shortest
  const isAnyOpen = all.some((part, index) => part !== undefined && !rests(places[index]!))
  const open = all.map((part, index) => {
    const place = places[index]!
    if (part === undefined || !isAnyOpen || !rests(place)) return part
    return question.agents === undefined ? undefined : later(part, place)
  })
  const parts = withOne(open, places)
  const some = parts.flatMap((part) => part ?? [])
  return {
    ends,
    parts,
    unplaced,
    atOnce: sumAll(parts.map((part, index) => part?.atOnce ?? places[index]!.running)),
    helps: sumAll(some.map(({ helps }) => helps)),
    shares: parts.map((part) => part?.helps ?? 0),
    isGuess: question.isGuess || some.some(({ searched }) => searched === undefined),
    last: parts.reduce((last, part, index) => ((part?.end ?? -1) > (parts[last]?.end ?? -1) ? index : last), 0),
    expiresAfter: Duration.millis(
      some.reduce((min, each) => Math.min(min, Duration.toMillis(each.expiresAfter)), Advice.longest)
    )
  }
})

/** The reason why a place can never take a call of the agents; undefined if it can. */
const misfitOf = <E>({ foretell }: AskedPlace<E>): Effect.Effect<Amounts.Misfit | undefined, E> =>
  Effect.map(foretell(1, Infinity), ({ refused }) => refused[0])

/** Notes what the advice assumes about a place, and why the place may get no agents. */
const notesOn = Effect.fnUntraced(function* <E>(place: AskedPlace<E>, end: EndOf<E>) {
  const { isKnown, name, restsFor, windows } = place
  const notes: Array<string> = []
  if (restsFor > 0) notes.push(`${name} takes no calls for ${Advice.span(Duration.millis(restsFor))}`)
  if (!isKnown) notes.push(`No limit of ${name} is known yet`)
  if ((yield* end(1)) < Infinity) return notes
  const misfit = yield* misfitOf(place)
  const why = misfit === undefined ? windows.map(({ text }) => text) : [Advice.tooLarge(misfit)]
  return [...notes, ...why.map((text) => `${name}: ${text}`)]
})

const roomText = (agents: number): string =>
  `the quotas and long windows of the places have room for ${counted(agents, "agent")} of this kind`

/** Advises how many agents to start whose calls go to several places. */
export const found = Effect.fnUntraced(function* <E>(
  question: Advice.Question,
  places: ReadonlyArray<AskedPlace<E>>
): Effect.fn.Return<AdviceModel, E> {
  const { ends, helps, isGuess, last, parts, shares: helping, unplaced, ...advice } = yield* helpful(question, places)
  const latest = parts[last]
  const notes = yield* Effect.forEach(places, (place, index) => notesOn(place, ends[index]!))
  const known = {
    ...question,
    ...advice,
    pool: places[last]!.pool,
    job: question.agents ?? Math.max(1, helps),
    assumptions: [...question.assumptions, ...notes.flat()]
  }
  const placesWith = (shares: ReadonlyArray<number>) =>
    places.map(({ name, pool }, index) => ({ name, pool, agents: shares[index]! }))
  if (latest === undefined) {
    const misfits = yield* Effect.forEach(places, misfitOf)
    if (misfits.every((misfit) => misfit !== undefined)) {
      return { ...Advice.never(known, misfits[0]!), places: placesWith(helping) }
    }
    const windows = places.flatMap(({ windows }) => windows)
    const unlimited = places.map((place) => ({ ...place, windows: [] }))
    return yield* found({ ...question, caps: [...question.caps, ...windows] }, unlimited)
  }
  const inAll = known.job - unplaced
  const room = unplaced === 0 ? [] : [{ name: "places", agents: inAll, text: roomText(inAll) }]
  const caps = [...question.caps, ...room]
  const agents = caps.reduce((min, cap) => Math.min(min, cap.agents), helps)
  const shares = agents < helps ? yield* dividedWithin(helping, ends, agents) : helping
  const together = Effect.fnUntraced(function* (count: number) {
    const shares = yield* divided(ends, count)
    const each = yield* Effect.forEach(ends, (end, index) => end(shares[index]!))
    return sumAll(shares) < count ? Infinity : Math.max(...each)
  })
  const all = yield* Effect.forEach(Advice.numbersAround(helps), (count) =>
    Effect.map(together(count), (millis) => ({ agents: count, end: Duration.millis(millis) }))
  )
  const finite = all.filter(({ end }) => Duration.isFinite(end))
  const { end, searched } = latest
  const binding = searched === undefined ? "unknown" : (yield* places[last]!.foretell(searched, Infinity)).binding
  return Advice.said({
    ...known,
    agents: helps,
    caps,
    end: Duration.millis(end),
    furtherAdds: Advice.furtherAdded(finite, helps),
    ends: finite,
    binding,
    isGuess,
    range: isGuess ? undefined : Advice.rangeOf(Duration.millis(end), question),
    places: placesWith(shares)
  })
})

/**
 * Forecasts agents that start now, so many at once, or without any those that run. Returns the forecast of the place where the last one
 * ends.
 */
export const foretold = Effect.fnUntraced(function* <E>(
  agents: number,
  atOnce: number,
  places: ReadonlyArray<AskedPlace<E>>
) {
  const shares = yield* divided(places.map(endOf), agents)
  const left = agents - sumAll(shares)
  // Agents that fit nowhere wait at a place without a known limit, which may have room, or else for ever at the first place.
  const rest = Math.max(
    0,
    places.findIndex(({ isKnown }) => !isKnown)
  )
  const all = yield* Effect.all(
    places.flatMap(({ foretell, pool }, index) => {
      const count = shares[index]! + (index === rest ? left : 0)
      const part = agents === 0 ? atOnce : Math.max(1, Math.ceil((atOnce * count) / agents))
      return count === 0 && agents > 0 ? [] : [Effect.map(foretell(count, part), (forecast) => ({ forecast, pool }))]
    })
  )
  const endOfAll = ({ forecast }: (typeof all)[number]) =>
    forecast.refused.length > 0 ? Infinity : Duration.toMillis(forecast.duration)
  return all.reduce((last, each) => (endOfAll(each) > endOfAll(last) ? each : last))
})
