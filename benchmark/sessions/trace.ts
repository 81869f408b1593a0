/** Recorded sessions of coding agents, and what the calls of a workload need of a provider. */
import { readFileSync } from "node:fs"
import { gunzipSync } from "node:zlib"

/** One call of a session. Sizes are in tokens, times in seconds. */
export interface Turn {
  /** The number of the session in the workload. */
  readonly session: number
  /** The agent within the session: `0` is the lead, `0/6` a sub-agent. */
  readonly path: string
  readonly prompt: number
  /** The prefix that the prompt shares with the call before it. */
  readonly shared: number
  readonly output: number
  /** The pause before the call. */
  readonly pause: number
}

export interface Workload {
  readonly sessions: ReadonlyArray<ReadonlyArray<Turn>>
  /** The provider's limit per minute, and the most that its bucket holds. */
  readonly perMinute: number
  readonly burst: number
  /** How long a prefix stays cached, in seconds; `Infinity` for a cache that never expires. */
  readonly lifetime: number
  /** Whether prefixes that are read from the cache count towards the limit. */
  readonly countsAll: boolean
  /** The output that a call allows. */
  readonly maxTokens: number
  readonly scale: number
}

export interface Choice {
  readonly count: number
  readonly offset: number
  readonly scale: number
  readonly perMinute: number
  /** As a part of the limit per minute. */
  readonly burst: number
  readonly lifetime: number
  readonly countsAll: boolean
}

/** Shorter sessions are left out, and longer ones are cut. */
const minTurns = 20
const maxTurns = 60
/** Without a lifetime, pauses say little, and would make the workload long. */
const maxPause = 10
/** No call needs more than this part of the bucket, so that each of them can be served. */
const maxPart = 0.8

/** Reads a file of sessions: lines of `session,path,start,input,cached,output,api,think,model`, with a head. */
export const read = (file: string): ReadonlyArray<ReadonlyArray<ReadonlyArray<string>>> => {
  const sessions = new Map<string, Array<ReadonlyArray<string>>>()
  const lines = gunzipSync(readFileSync(file)).toString().trim().split("\n").slice(1)
  for (const line of lines) {
    const row = line.split(",")
    const session = sessions.get(row[0]!)
    if (session === undefined) sessions.set(row[0]!, [row])
    else session.push(row)
  }
  return [...sessions.values()].filter(({ length }) => length >= minTurns)
}

/** Chooses sessions that are spread over the file, and scales them down. */
export const workloadOf = (
  recorded: ReadonlyArray<ReadonlyArray<ReadonlyArray<string>>>,
  { burst, count, countsAll, lifetime, offset, scale, ...limit }: Choice
): Workload => {
  const perMinute = limit.perMinute / scale
  const most = maxPart * perMinute * burst
  const scaled = (tokens: string | undefined) => Math.max(1, Math.round(Number(tokens) / scale))
  const step = Math.max(1, Math.floor(recorded.length / count))
  const turnsOf = (session: number): ReadonlyArray<Turn> =>
    recorded[(session * step + offset) % recorded.length]!.slice(0, maxTurns).map((row) => {
      const prompt = Math.min(Math.max(4, scaled(row[3])), countsAll ? Math.floor(most) : Infinity)
      const least = Math.max(0, Math.ceil(prompt - most))
      const shared = Math.max(least, Math.min(prompt - 1, Math.round(Number(row[4]) / scale)))
      const pause = Number(row[7])
      return {
        session,
        path: row[1]!,
        prompt,
        shared,
        output: scaled(row[5]),
        pause: lifetime === Infinity ? Math.min(maxPause, pause) : pause
      }
    })
  const sessions = Array.from({ length: count }, (_, session) => turnsOf(session))
  const maxTokens = Math.ceil(32_000 / scale)
  return { sessions, perMinute, burst: perMinute * burst, lifetime, countsAll, maxTokens, scale }
}

/** How long an answer takes. */
export const secondsOf = ({ output }: Turn, { scale }: Workload): number => 2 + 0.015 * output * scale

/** The cache of a provider: when the prefix of each agent was last used. */
export class Cache {
  private readonly used = new Map<string, number>()
  private readonly workload: Workload

  constructor(workload: Workload) {
    this.workload = workload
  }

  /** The tokens that a call reads from the cache at a time. */
  readBy({ path, prompt, session, shared }: Turn, now: number): number {
    const { burst, lifetime } = this.workload
    const used = this.used.get(`${session}/${path}`)
    // A prompt that is larger than the bucket could never be served by a cold cache.
    const least = Math.max(0, Math.ceil(prompt - maxPart * burst))
    return used === undefined || now - used > lifetime ? least : shared
  }

  /** What a call takes from the limit. */
  needOf(turn: Turn, now: number): number {
    return this.workload.countsAll ? turn.prompt : turn.prompt - this.readBy(turn, now)
  }

  use({ path, session }: Turn, now: number): void {
    this.used.set(`${session}/${path}`, now)
  }
}

/** A provider's bucket, in tokens and seconds. */
export class Bucket {
  readonly capacity: number
  readonly rate: number
  level: number
  private at = 0

  constructor({ burst, perMinute }: Workload) {
    this.capacity = this.level = burst
    this.rate = perMinute / 60
  }

  advance(now: number): void {
    this.level = Math.min(this.capacity, this.level + (now - this.at) * this.rate)
    this.at = now
  }

  /** Seconds until a need fits. One that is larger than the bucket fits when that is full. */
  wait(need: number): number {
    const missing = Math.min(need, this.capacity) - this.level
    return missing <= 1e-9 ? 0 : missing / this.rate + 1e-9
  }
}

/** What became of a workload. Times are in seconds. */
export interface Result {
  readonly seconds: number
  /** The mean end of a session. */
  readonly mean: number
  /** The end of each session. */
  readonly ends: ReadonlyArray<number>
  readonly rejected: number
  readonly lost: number
}
