/** The measured limit, against a small model of a server that queues any number of calls. */
import { assert, describe, it } from "@effect/vitest"
import * as Measured from "../../src/pacing/measured.ts"
import { mulberry } from "../support/random.ts"

interface Server {
  /** The calls that it works on at once, at a time in seconds. */
  readonly slots: (seconds: number) => number
  /** Milliseconds of a token. While it is infinite, nothing is computed. @default 20 */
  readonly tokenMillis?: (running: number, seconds: number) => number
  /** Milliseconds on the way, there and back. @default 0 */
  readonly distance?: number
  /** Whether answers arrive as they are computed. @default true */
  readonly streams?: boolean
  /** The part of an answer that is computed and not heard. @default 0 */
  readonly hidden?: number
}

interface Clients {
  /** The agents of each process, and when it starts, in seconds. */
  readonly processes: ReadonlyArray<{ readonly agents: number; readonly from?: number }>
  /** Milliseconds after which a call is given up. @default never */
  readonly timeout?: number
  /** @default 50 to 650 */
  readonly tokens?: (random: number) => number
}

interface Call {
  readonly process: number
  readonly sentAt: number
  readonly total: number
  readonly arrivesAt: number
  made: number
  beganAt: number | undefined
  endsAt: number
}

const step = 20

/** Calls of agents without a pause. Returns for each second: calls running, waiting at the server, and each process's limit and tokens. */
const play = (server: Server, { processes, timeout = Infinity, tokens }: Clients, seconds: number, seed = 1) => {
  const { distance = 0, hidden = 0, slots, streams = true, tokenMillis = () => 20 } = server
  const random = mulberry(seed)
  const states = processes.map(() => ({ law: Measured.make(0), inFlight: 0, made: 0, lost: 0 }))
  let waiting: Array<Call> = []
  let running: Array<Call> = []
  let ending: Array<Call> = []
  const perSecond: Array<{
    running: number
    waiting: number
    limits: Array<number>
    made: Array<number>
    lost: number
  }> = []
  for (let now = 0; now < seconds * 1_000; now += step) {
    const at = now / 1_000
    for (const call of ending.filter(({ endsAt }) => endsAt <= now)) end(call, "answered", now)
    ending = ending.filter(({ endsAt }) => endsAt > now)
    for (const call of [...waiting, ...running]) {
      if (now - call.sentAt < timeout) continue
      waiting = waiting.filter((each) => each !== call)
      running = running.filter((each) => each !== call)
      end(call, "lost", now)
    }
    processes.forEach(({ agents, from = 0 }, process) => {
      const state = states[process]!
      const room = at < from ? 0 : Math.min(agents, Measured.limit(state.law)) - state.inFlight
      for (let free = room; free > 0; free--) {
        state.inFlight++
        const total = Math.round(tokens?.(random()) ?? 50 + 600 * random())
        const arrivesAt = now + distance / 2
        waiting.push({ process, sentAt: now, total, arrivesAt, made: 0, beganAt: undefined, endsAt: Infinity })
      }
    })
    while (running.length < slots(at) && (waiting[0]?.arrivesAt ?? Infinity) <= now) running.push(waiting.shift()!)
    const each = step / tokenMillis(running.length, at)
    for (const call of running) {
      call.made += each
      const isHeard = streams && call.made >= Math.max(1, hidden * call.total) && call.beganAt === undefined
      if (isHeard && call.made < call.total) {
        call.beganAt = now + distance / 2
        const state = states[call.process]!
        state.law = Measured.began(state.law, call.sentAt, call.beganAt)
      }
      if (call.made >= call.total) ending.push(Object.assign(call, { endsAt: now + distance / 2 }))
    }
    running = running.filter(({ made, total }) => made < total)
    if (now % 1_000 > 0) continue
    perSecond.push({
      running: running.length,
      waiting: waiting.filter(({ arrivesAt }) => arrivesAt <= now).length,
      limits: states.map(({ law }) => Measured.limit(law)),
      made: states.map(({ made }) => made),
      lost: states.reduce((sum, { lost }) => sum + lost, 0)
    })
  }
  return { perSecond, states }

  function end(call: Call, how: Measured.Ending, now: number): void {
    const state = states[call.process]!
    const output = how === "answered" ? call.total : 0
    state.law = Measured.ended(state.law, { ...call, output }, how, state.inFlight, now)
    state.inFlight--
    state.made += output
    if (how === "lost") state.lost++
  }
}

const mean = (values: ReadonlyArray<number>): number => values.reduce((sum, value) => sum + value, 0) / values.length

/** The mean running, as a part of `slots`, and the mean waiting, between two seconds. */
const between = ({ perSecond }: ReturnType<typeof play>, from: number, to: number) => {
  const part = perSecond.slice(from, to)
  return { running: mean(part.map(({ running }) => running)), waiting: mean(part.map(({ waiting }) => waiting)) }
}

const alone = (agents: number) => ({ processes: [{ agents }] })

describe("a measured limit", () => {
  it("is a whole number from 1 to its ceiling after any events, counts the calls that have begun, and does not grow in size", () => {
    for (let seed = 1; seed <= 40; seed++) {
      const random = mulberry(seed)
      const open: Array<{ sentAt: number; beganAt: number | undefined; output: number }> = []
      let m = Measured.make(0)
      const keys = JSON.stringify(Object.keys({ ...m, ...m.line, ...m.ceiling }))
      let now = 0
      for (let event = 0; event < 300; event++) {
        now += random() < 0.3 ? 0 : Math.floor(10 ** (5 * random()))
        const index = Math.floor(random() * open.length)
        const call = open[index]
        if (call === undefined || random() < 0.3) open.push({ sentAt: now, beganAt: undefined, output: 0 })
        else if (call.beganAt === undefined && random() < 0.5) {
          call.beganAt = now
          m = Measured.began(m, call.sentAt, now)
        } else {
          const output = random() < 0.2 ? 0 : Math.floor(10 ** (4 * random()))
          const how = (["answered", "answered", "lost", "left"] as const)[Math.floor(4 * random())]!
          m = Measured.ended(m, { ...call, output }, how, open.length, now)
          open.splice(index, 1)
        }
        const limit = Measured.limit(m)
        assert.isTrue(Number.isSafeInteger(limit) && limit >= 1 && limit <= Math.max(1, m.ceiling.calls), `${limit}`)
        assert.strictEqual(m.begun, open.filter(({ beganAt }) => beganAt !== undefined).length)
        assert.strictEqual(JSON.stringify(Object.keys({ ...m, ...m.line, ...m.ceiling })), keys)
      }
    }
  })

  for (const [name, server] of [
    ["streams", { slots: () => 64 }],
    ["answers as a whole", { slots: () => 64, streams: false }],
    ["streams, of which a proxy gathers all", { slots: () => 64, hidden: 1 }],
    ["streams, of which half is reasoning that is not heard", { slots: () => 64, hidden: 0.5 }],
    ["is a second and a half away", { slots: () => 64, distance: 1_500 }],
    ["is four seconds away", { slots: () => 64, distance: 4_000 }]
  ] as const) {
    it(`keeps a server busy that ${name}, within a minute, and lets few calls wait there`, () => {
      const found = between(play(server, alone(300), 240), 60, 240)
      assert.isAtLeast(found.running, 0.95 * 64)
      assert.isAtMost(found.waiting, 24)
    })
  }

  it("keeps the one slot of a small server busy, and lets one call wait there once the first ones are through", () => {
    const played = play({ slots: () => 1 }, alone(20), 240)
    assert.isAtLeast(between(played, 20, 240).running, 0.98)
    assert.isAtMost(between(played, 160, 240).waiting, 1.2)
  })

  it("never holds back a lone agent, nor bursts of as many calls as the server takes", () => {
    for (const agents of [1, 12]) {
      for (const streams of [true, false]) {
        const { perSecond } = play({ slots: () => 64, streams }, alone(agents), 120)
        assert.isTrue(perSecond.every(({ limits: [limit] }) => limit! >= agents))
      }
    }
  })

  it("follows a server that gets larger and smaller within seconds", () => {
    const slots = (at: number) => (at >= 120 && at < 240 ? 64 : 24)
    const played = play({ slots }, alone(300), 360)
    assert.isAtLeast(between(played, 60, 120).running, 0.97 * 24)
    assert.isAtLeast(between(played, 150, 240).running, 0.95 * 64)
    const after = between(played, 280, 360)
    assert.isAtLeast(after.running, 0.97 * 24)
    assert.isAtMost(after.waiting, 8)
  })

  it("learns nothing while a model is loaded, even if calls are given up", () => {
    const tokenMillis = (_: number, at: number) => (at < 90 ? Infinity : 20)
    const played = play({ slots: () => 64, tokenMillis }, { ...alone(300), timeout: 30_000 }, 240)
    assert.isAbove(played.perSecond[89]!.lost, 0)
    assert.strictEqual(played.perSecond[89]!.limits[0], 16)
    assert.isAtLeast(between(played, 150, 240).running, 0.95 * 64)
  })

  it("shares a server fairly with another process, also if that comes later, and wherever the server is", () => {
    for (const distance of [0, 4_000]) {
      const processes = [{ agents: 200 }, { agents: 200, from: 60 }]
      const { perSecond } = play({ slots: () => 64, distance }, { processes }, 360)
      const [one, other] = [0, 1].map((process) => perSecond[359]!.made[process]! - perSecond[120]!.made[process]!)
      assert.isAtLeast(Math.min(one!, other!) / Math.max(one!, other!), distance === 0 ? 0.85 : 0.6)
    }
  })

  it("keeps most calls of ten processes at a small server from waiting in vain", () => {
    const processes = Array.from({ length: 10 }, () => ({ agents: 10 }))
    const { perSecond } = play({ slots: () => 4 }, { processes, timeout: 60_000 }, 360)
    const [before, after] = [perSecond[180]!, perSecond[359]!]
    const made = (at: typeof after) => at.made.reduce((sum, each) => sum + each, 0)
    const lost = after.lost - before.lost
    assert.isAtMost(lost / (lost + (made(after) - made(before)) / 350), 0.2)
  })

  it("is cut where every call begins at once but too many take too long, and recovers when the server is fast again", () => {
    const tokenMillis = (running: number, at: number) => (at < 400 ? 10 + 1.5 * running : 10)
    const clients = { ...alone(300), timeout: 40_000 }
    const played = play({ slots: () => 1_000, tokenMillis }, clients, 700)
    const { limits, lost } = played.perSecond[399]!
    assert.isAtMost(limits[0]!, 100)
    assert.isBelow((lost - played.perSecond[300]!.lost) / 100, 1.5)
    assert.strictEqual(Measured.statusOf(played.states[0]!.law, 0).by === "start", false)
    assert.isAtLeast(played.perSecond[699]!.limits[0]!, 2 * limits[0]!)
  })

  it("says what it is made of", () => {
    let m = Measured.make(0)
    assert.deepStrictEqual(Measured.statusOf(m, 2), {
      limit: 16,
      by: "start",
      begun: 0,
      waiting: 2,
      firstTokenMillis: undefined,
      leastFirstTokenMillis: undefined,
      ceiling: 16,
      max: undefined
    })
    m = Measured.began(m, 0, 400)
    // One has begun, one may wait as it does, and 0.2 begin in a second.
    assert.deepStrictEqual(Measured.statusOf(m, 2), {
      limit: 2,
      by: "first tokens",
      begun: 1,
      waiting: 1,
      firstTokenMillis: 400,
      leastFirstTokenMillis: 400,
      ceiling: 16,
      max: undefined
    })
    m = Measured.ended(m, { sentAt: 0, beganAt: undefined, output: 100 }, "answered", 2, 3_000)
    assert.deepStrictEqual([Measured.statusOf(m, 1).by, m.streamed], ["whole answers", 0])
    assert.strictEqual(Measured.statusOf(m, 1, 64).max, 64)
  })
})
