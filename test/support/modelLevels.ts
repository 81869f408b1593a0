/** What the model of a budget knows of the limits: levels, the pace, and what responses said. */
import * as Reading from "./modelReading.ts"

export type Dimension = "requests" | "inputTokens" | "outputTokens" | "tokens"
/** In the order in which responses are read. */
export const order: ReadonlyArray<Dimension> = ["requests", "inputTokens", "outputTokens", "tokens"]
export type Charge = { [D in Dimension]?: number }

/** A limit as a bucket: refill per millisecond, and what one minute may hold where that is counted. */
export interface Rule {
  readonly capacity: number
  readonly rate: number
  readonly most: number
  readonly perMinute?: number
  readonly quota?: boolean
}
export type Rules = { readonly [D in Dimension]?: Rule }

interface Spent {
  readonly at: number
  amount: number
}

interface Dim {
  rule: Rule
  level: number
  reserve: number
  spent: Array<Spent>
}

/** What a response said of the limits, and when by the provider's clock. */
export interface Signal {
  readonly figures: Reading.Figures
  readonly date: number | undefined
}

export interface Call {
  readonly id: number
  readonly agent: string
  readonly priority: number
  readonly weight: number
  readonly charge: Charge
  cost: number
  state: "waiting" | "open" | "gone"
  /** What is held of it while it is open: its charge, as far as limits were known when it was admitted. */
  held: Charge
  /** What was left of each dimension then; every correction since is made here, too. */
  left: Map<Dimension, number>
  /** What its response said. */
  signal: Signal | undefined
  /** The number of its admission. */
  turn: number
  takenAt: number
  spent: Map<Dimension, Spent>
  /** By how much its service moved virtual time on; undefined where it had not to queue. */
  moved: number | undefined
  /** How often history had been forgotten by then. */
  era: number
}

const stepMillis = 10_000
const windowMillis = 60_000
/** A window is remembered second by second: a second's admissions leave it together. */
const cellMillis = 1_000

export class Levels {
  now = 0
  /** Nobody goes before. */
  until = 0
  /** When a rejection was last heard that said something new. */
  private judgedAt = -Infinity
  scale = 1
  private growth = 0
  private callsInStep = 0
  private ramped = false
  private stepAt = 0
  /** What somebody else spent in this step, as a part of its refill. */
  private drift = 0
  readonly calls = new Map<number, Call>()
  readonly dims = new Map<Dimension, Dim>()
  /** What was configured: responses only cut it down. */
  protected given: Rules
  protected heardAt = 0
  /** The provider's date of the latest response that was heeded. */
  private latestDate = -Infinity
  private readonly doubts: Reading.Doubts = { taken: 0, now: 0 }
  /** What responses and rejections took from each level, and gave, in sum; nothing where none spoke of it. */
  private readonly corrected = new Map<Dimension, number>()
  /** The latest call that the provider had counted when it made us move the level. */
  private readonly countedUpTo = new Map<Dimension, number>()
  protected admissions = 0
  private readonly headroom: number

  constructor(rules: Rules, headroom: number) {
    this.headroom = headroom
    this.given = rules
    this.setRules(rules)
  }

  protected take(call: Call): void {
    call.turn = ++this.admissions
    for (const [dimension, dim] of this.dims) {
      const amount = call.charge[dimension] ?? 0
      dim.level -= amount
      const spent = { at: this.now, amount }
      call.held[dimension] = amount
      call.left.set(dimension, dim.level)
      call.spent.set(dimension, spent)
      dim.spent.push(spent)
    }
    if (this.scale < 1 && !this.ramped && ++this.callsInStep >= 16 && this.drift <= 0) this.grow(this.now)
  }

  /** What was used replaces what was held. */
  protected settle(call: Call, used: Charge): void {
    for (const [dimension, dim] of this.dims) {
      const estimate = call.held[dimension]
      if (estimate === undefined) continue
      const more = (used[dimension] ?? estimate) - estimate
      if (more > 0) {
        dim.level -= more
        dim.spent.push({ at: this.now, amount: more })
      } else {
        // What the provider had counted already when it spoke is not given back, but it leaves the window.
        const counted = dim.rule.quota !== true && call.turn <= (this.countedUpTo.get(dimension) ?? -1)
        if (!counted) dim.level = Math.max(dim.level, Math.min(dim.rule.capacity, dim.level - more))
        const spent = call.spent.get(dimension)
        if (spent !== undefined) spent.amount += more
      }
    }
  }

  protected cool(millis: number, reason: "rateLimit" | "ramp", rejected: Call): void {
    const wasCooling = this.until > this.now
    this.until = Math.max(this.until, this.now + millis)
    // Calls that were out when a rejection was heard have nothing to add to it by their own.
    if (!wasCooling && rejected.takenAt > this.judgedAt) {
      this.judgedAt = this.now
      if (reason === "ramp") {
        this.slow(0.9, 1 / 60)
      } else if (this.fitsAll(rejected.held)) {
        for (const [dimension, dim] of this.dims) {
          const asked = rejected.held[dimension] ?? 0
          if (dim.rule.quota === true || asked === 0) continue
          const need = Math.min(asked + dim.reserve, dim.rule.capacity)
          this.correctLevel(dimension, Math.min(dim.level, need - dim.rule.rate * this.scale * 0.7 * millis))
        }
        this.slow(0.7, 0.05)
      } else if (this.isChanging()) {
        this.slow(0.8, 0.02)
      }
    }
  }

  protected setRules(rules: Rules): void {
    for (const [dimension, rule] of Object.entries(rules) as Array<[Dimension, Rule]>) {
      const dim = this.dims.get(dimension)
      if (dim === undefined) {
        const reserve = rule.quota === true ? 0 : rule.capacity * this.headroom
        this.dims.set(dimension, { rule, level: rule.capacity, reserve, spent: [] })
        continue
      }
      dim.reserve = (dim.reserve / dim.rule.capacity) * rule.capacity
      dim.rule = rule
      dim.level = Math.min(dim.level, rule.capacity)
    }
  }

  /** Moves the local view toward what a response says. */
  protected hear({ date, figures }: Signal, answered: Call | undefined): void {
    if (order.some((dimension) => figures[dimension]?.limit !== undefined)) this.heardAt = this.now
    // Older than the latest by seconds: it was overtaken. By more than a minute: the latest was wrong.
    if (date !== undefined && date < this.latestDate && date > this.latestDate - 60_000) return
    this.latestDate = date ?? this.latestDate
    const open = [...this.calls.values()].filter((call) => call.state === "open")
    const isIdle =
      answered !== undefined && answered.turn === this.admissions && open.every((call) => call === answered)
    let theirs = 0
    for (const dimension of order) {
      const figure = figures[dimension]
      if (figure === undefined) continue
      this.learn(dimension, figure)
      const dim = this.dims.get(dimension)
      if (dim === undefined || dim.rule.quota === true || figure.remaining === undefined) continue
      const isOutput = dimension === "outputTokens"
      const outputOf = (calls: ReadonlyArray<Call>) =>
        isOutput ? calls.reduce((sum, call) => sum + (call.held.outputTokens ?? 0), 0) : 0
      const own = outputOf(open.filter((call) => call === answered))
      const others = outputOf(open.filter((call) => call !== answered))
      const { capacity } = dim.rule
      const leftThen = isOutput ? undefined : answered?.left.get(dimension)
      const left = leftThen === undefined ? undefined : Math.min(capacity, leftThen)
      const view = { capacity, level: dim.level, left, others }
      const { less, more, sure } = Reading.read(figure.remaining, figure.roundedTo ?? 1, view, this.doubts)
      const counted = () => {
        const upTo = answered?.turn ?? this.admissions
        if (!isOutput) this.countedUpTo.set(dimension, Math.max(upTo, this.countedUpTo.get(dimension) ?? -1))
      }
      const perStep = dim.rule.rate * stepMillis
      const before = this.corrected.get(dimension)
      let level = dim.level
      if (less > 0) {
        level = dim.level - less - own
        dim.reserve = Math.min(capacity / 4, 2 * Math.max(dim.reserve, capacity * this.headroom))
        // The first figure tells where we start, later ones what somebody else spends; output may be our own.
        const spent = less - others - own
        if (before !== undefined && spent > 0) theirs = Math.max(theirs, spent / perStep)
        counted()
      } else {
        dim.reserve = Math.max(dim.reserve / 2, (capacity * this.headroom) / 16)
        if (isIdle && this.scale >= 1) {
          // Everything that was sent is counted: it may be raised.
          level = Math.min(capacity, Math.max(dim.level, sure - own))
          if (level > dim.level) counted()
        } else if (leftThen !== undefined && more > 0 && this.scale >= 1) {
          // What was taken from the level before is given back, no more, and not while it was just told no.
          const returned = Math.min(more, -(before ?? 0))
          if (returned > 0) {
            level = dim.level + returned
            if (theirs <= 0) theirs = Math.min(theirs, -returned / perStep)
          }
        }
      }
      this.correctLevel(dimension, level)
    }
    if (theirs === 0) return
    if (!this.isChanging()) this.stepAt = this.now
    // What is no more than the last bits of a sum is nobody's.
    this.drift = this.drift + theirs < 1e-9 ? 0 : this.drift + theirs
  }

  private learn(dimension: Dimension, figure: Reading.Figure): void {
    const given = this.given[dimension]
    if (figure.limit === undefined || given?.quota === true) return
    const before = this.dims.get(dimension)?.rule.capacity ?? 0
    const rule = given === undefined ? Reading.learned(dimension, figure, before) : Reading.cutDown(given, figure.limit)
    this.setRules({ [dimension]: rule })
  }

  /** A correction is no spending: it moves what was left when each call was taken, too. */
  private correctLevel(dimension: Dimension, level: number): void {
    const dim = this.dims.get(dimension)!
    const by = level - dim.level
    this.corrected.set(dimension, (this.corrected.get(dimension) ?? 0) + by)
    for (const { left } of this.calls.values()) if (left.has(dimension)) left.set(dimension, left.get(dimension)! + by)
    dim.level = Math.min(level, dim.rule.capacity)
  }

  private isChanging(): boolean {
    return this.scale < 1 || this.drift > 0
  }

  protected tooLarge(call: Call): boolean {
    return [...this.dims].some(([dimension, { rule }]) => (call.charge[dimension] ?? 0) > rule.most)
  }

  protected overQuota(call: Call): boolean {
    return [...this.dims].some(
      ([dimension, { level, rule }]) => rule.quota === true && (call.charge[dimension] ?? 0) > level
    )
  }

  protected fitsAll(charge: Charge): boolean {
    for (const [dimension, { level, reserve, rule, spent }] of this.dims) {
      const amount = charge[dimension] ?? 0
      if (amount === 0) continue
      const slack = rule.capacity * 1e-9
      const need = rule.quota === true ? amount : Math.min(amount + reserve, rule.capacity)
      if (level < need - slack) return false
      if (rule.perMinute === undefined) continue
      let sum = amount
      for (const entry of spent) if (this.counts(entry)) sum += entry.amount
      if (sum > rule.perMinute * (1 + 1e-9)) return false
    }
    return true
  }

  private counts(entry: Spent): boolean {
    return this.now < (Math.floor(entry.at / cellMillis) + 1) * cellMillis + windowMillis
  }

  /** What would be at a time, without going there. */
  protected at<A>(time: number, look: () => A): A {
    const saved = {
      now: this.now,
      scale: this.scale,
      growth: this.growth,
      drift: this.drift,
      stepAt: this.stepAt,
      callsInStep: this.callsInStep,
      ramped: this.ramped,
      levels: [...this.dims.values()].map((dim) => dim.level)
    }
    this.moveTo(time)
    const seen = look()
    this.now = saved.now
    this.scale = saved.scale
    this.growth = saved.growth
    this.drift = saved.drift
    this.stepAt = saved.stepAt
    this.callsInStep = saved.callsInStep
    this.ramped = saved.ramped
    let i = 0
    for (const dim of this.dims.values()) dim.level = saved.levels[i++]!
    return seen
  }

  protected moveTo(time: number): void {
    while (this.isChanging() && this.stepAt + stepMillis <= time) {
      this.refillTo(this.stepAt + stepMillis)
      this.grow(this.stepAt + stepMillis)
    }
    this.refillTo(time)
  }

  private refillTo(time: number): void {
    for (const dim of this.dims.values()) {
      dim.level = Math.min(dim.rule.capacity, dim.level + dim.rule.rate * this.scale * (time - this.now))
    }
    this.now = time
  }

  private slow(factor: number, growth: number): void {
    if (this.scale === 1) {
      this.growth = growth
      this.callsInStep = 0
      this.ramped = false
    }
    this.growth = Math.min(growth, this.growth)
    if (growth === 1 / 60) this.ramped = true
    this.scale = Math.max(0.05, this.scale * factor)
    this.stepAt = this.now
    this.drift = 0
  }

  /** The end of a step: after ten seconds, or sixteen calls. */
  private grow(time: number): void {
    this.stepAt = time
    this.callsInStep = 0
    if (this.drift > 0) {
      // What somebody else spent is left to him; a step takes half at most.
      this.scale = Math.max(0.05, this.scale - Math.min(this.drift, this.scale / 2))
      this.growth = 0.02
      this.drift = 0
    } else {
      this.scale = Math.min(1, this.scale + this.growth)
    }
  }
}
