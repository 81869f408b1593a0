/**
 * The mutants that survive, and why: either no input can tell the mutant from the code, or both are right. A mutant that
 * survives and is not listed here shows that a test is missing.
 */
import type { Mutant } from "./mutants.ts"

export interface Reason {
  readonly file: string
  /** Part of the source line. */
  readonly code: string
  /** One mutant each. */
  readonly changes: ReadonlyArray<readonly [was: string, is: string]>
  readonly why: string
}

export const reasons: ReadonlyArray<Reason> = [
  {
    file: "cap.ts",
    code: "if (now <= cap.at) return",
    changes: [["<=", "<"]],
    why: "No time has passed, and nothing is refilled."
  },
  {
    file: "cap.ts",
    code: "if (fall(i) < fall(alike)) alike = i",
    changes: [["<", "<="]],
    why: "Of pairs that are equally close, any may be merged."
  },
  {
    file: "cap.ts",
    code: "if (rule.window !== undefined) cap.cells = Cells.advance",
    changes: [["rule.window !== undefined", "true"]],
    why: "Where the rule has no window, there are no cells."
  },
  {
    file: "cap.ts",
    code: "if (rule.window !== undefined && charge > 0)",
    changes: [[">", ">="]],
    why: "A cell with nothing in it holds nothing back."
  },
  {
    file: "cap.ts",
    code: "given > 0) cap.cells = Cells.giveBack",
    changes: [[">", ">="]],
    why: "Where nothing is given back, the cells stay as they are."
  },
  {
    file: "cap.ts",
    code: "if (kept < since || (room > 0",
    changes: [
      ["kept < since || (room > 0 && since < highs.length)", "true"],
      ["&&", "||"],
      ["<", "<="],
      [">", ">="]
    ],
    why: "Levels that stay as they are need not be copied."
  },
  {
    file: "gate.ts",
    code: "isProbing(gate) ? {",
    changes: [["isProbing(gate)", "true"]],
    why: "Closing the gate resets the count of probes."
  },
  {
    file: "gate.ts",
    code: "gate.misses > 0 && sentAt > gate.fence",
    changes: [[">", ">="]],
    why: "A gate that is open stays as it is."
  },
  {
    file: "cap.ts",
    code: "leaves: rule.window === undefined ?",
    changes: [["rule.window === undefined", "false"]],
    why: "Without cells nothing leaves, and the window is not looked at."
  },
  {
    file: "fairQueue.ts",
    code: "a.priority > b.priority",
    changes: [[">", ">="]],
    why: "No two levels have the same priority."
  },
  {
    file: "flows.ts",
    code: "a.start === b.start && a.rank < b.rank",
    changes: [["<", "<="]],
    why: "No two flows have the same rank."
  },
  {
    file: "serviceOrder.ts",
    code: "cursor.flowAt = -1",
    changes: [["cursor.flowAt = -1", "nothing"]],
    why: "A newcomer that replaces a head ends the order, so nobody asks what is below that head."
  },
  {
    file: "flows.ts",
    code: "if (entry.cost > smallPart * cost ||",
    changes: [[">", ">="]],
    why: "A call that is exactly at the bound may count as either."
  },
  {
    file: "flows.ts",
    code: "return start + this.stepOf(entry) * (1 + 1e-9) < end",
    changes: [
      ["+", "-"],
      ["*", "/"],
      ["<", "<="]
    ],
    why: "The factor is one, up to rounding."
  },
  {
    file: "window.ts",
    code: "if (now < dueAt) return",
    changes: [["dueAt === w.dueAt", "false"]],
    why: "A window in which nothing changes need not be copied."
  },
  {
    file: "window.ts",
    code: "return high === w.high && refutedAt === w.refutedAt",
    changes: [["high === w.high && refutedAt === w.refutedAt", "false"]],
    why: "A window in which nothing changes need not be copied."
  },
  {
    file: "window.ts",
    code: "burst === undefined || call.at >= burst.knownAt",
    changes: [[">=", ">"]],
    why: "A call that was sent at the very time at which a rejection became known may have been sent before or after it."
  },
  {
    file: "window.ts",
    code: "if (call.number > burst.first)",
    changes: [[">", ">="]],
    why: "No call is rejected twice."
  },
  {
    file: "window.ts",
    code: "const isAlarm = test.score >= (call.inFlight",
    changes: [[">=", ">"]],
    why: "Scores are sums of logarithms, and equal a threshold by accident alone."
  },
  {
    file: "window.ts",
    code: "return burst.times * Math.log(worthActing / p)",
    changes: [[">=", ">"]],
    why: "Scores are sums of logarithms, and equal a threshold by accident alone."
  },
  {
    file: "window.ts",
    code: "size <= claimed && burst !== undefined && call.number > burst.first",
    changes: [[">", ">="]],
    why: "No call is both rejected and accepted."
  },
  {
    file: "window.ts",
    code: "now >= (w.retryAt ?? Infinity)",
    changes: [["w.retryAt ?? Infinity", "w.retryAt"]],
    why: "Comparisons with an undefined time are false."
  },
  {
    file: "outage.ts",
    code: "if (pacer.outageTest.score < Math.max(outageScore",
    changes: [["<", "<="]],
    why: "Scores are sums of logarithms, and equal a threshold by accident alone."
  },
  {
    file: "full.ts",
    code: "? score >= openingScore",
    changes: [[">=", ">"]],
    why: "Scores are sums of logarithms, and equal a threshold by accident alone."
  },
  {
    file: "full.ts",
    code: ": score >= alarmScore(pacer)",
    changes: [[">=", ">"]],
    why: "Scores are sums of logarithms, and equal a threshold by accident alone."
  },
  {
    file: "preview.ts",
    code: "meter.header === undefined && Meter.rate(meter) >= meter.limit",
    changes: [
      ["meter.header === undefined && Meter.rate(meter) >= meter.limit", "false"],
      [">=", ">"]
    ],
    why: "A shortcut: without a measured average, the larger of share and limit is the limit again."
  },
  {
    file: "admit.ts",
    code: "if (now - block.at > pacer.overloadMillis)",
    changes: [[">", ">="]],
    why: "A call that is exactly as old as failures take may count as either."
  },
  {
    file: "admit.ts",
    code: "other.millis > (one?.millis ?? 0) ? other : one",
    changes: [[">", ">="]],
    why: "If two waits are equal, either may be named."
  },
  {
    file: "rates.ts",
    code: "meter.phase > (found?.phase ?? -Infinity)",
    changes: [[">", ">="]],
    why: "If two meters have the same phase, either is the furthest."
  },
  {
    file: "rates.ts",
    code: "return meter.phase > safePhase && meter.phase <= 0",
    changes: [[">", ">="]],
    why: "A phase is exactly at the lower end of this range by accident alone."
  },
  {
    file: "ends.ts",
    code: "if (window.size < Infinity && Window.refutes",
    changes: [["<", "<="]],
    why: "Where no limit is claimed, nothing refutes it."
  },
  {
    file: "ends.ts",
    code: "for (let i = 0; i < meters.length; i++)",
    changes: [["<", "<="]],
    why: "No call was charged to a meter that does not exist."
  },
  {
    file: "status.ts",
    code: "header === undefined || fence > header.at",
    changes: [[">", ">="]],
    why: "Of two measurements at the same time, either may be named."
  },
  {
    file: "headers.ts",
    code: "if (shown < meter.level) meter.level = shown",
    changes: [["<", "<="]],
    why: "Where both are equal, either branch leaves the level as it is."
  },
  {
    file: "headers.ts",
    code: "meter.level < 0 && level > meter.level",
    changes: [["<", "<="]],
    why: "A level is exactly 0 by accident alone, and a header that shows 0 then says nothing new."
  },
  {
    file: "headers.ts",
    code: "meter.level < 0 && level > meter.level",
    changes: [[">", ">="]],
    why: "Where both are equal, there is nothing to raise."
  },
  {
    file: "headers.ts",
    code: "(get(certain, dimension) ?? 0)",
    changes: [["get(certain, dimension) ?? 0", "get(certain, dimension)"]],
    why: "Comparisons with an undefined amount are false."
  },
  {
    file: "headers.ts",
    code: "const held = remaining >= least ||",
    changes: [[">=", ">"]],
    why: "Where both are equal, either is what the bucket holds."
  },
  {
    file: "headers.ts",
    code: "if (level <= meter.level) return",
    changes: [["<=", "<"]],
    why: "Where both are equal, there is nothing to raise."
  },
  {
    file: "rejections.ts",
    code: "if (certain > 0) {",
    changes: [[">", ">="]],
    why: "Nothing is learned from zero calls."
  },
  {
    file: "admit.ts",
    code: "const millis = Meter.wait(meter, get(charge, meter.dimension) ?? 0",
    changes: [["get(charge, meter.dimension) ?? 0", "get(charge, meter.dimension)"]],
    why: "Comparisons with a NaN wait are false."
  },
  {
    file: "large.ts",
    code: "meters.find((meter) => (meter.lacked?.times ?? 0) > 1",
    changes: [["meter.lacked?.times ?? 0", "meter.lacked?.times"]],
    why: "Comparisons with an undefined number are false."
  },
  {
    file: "large.ts",
    code: "if (size >= tooLargePart * (meter.tooLarge?.charge ?? Infinity))",
    changes: [["meter.tooLarge?.charge ?? Infinity", "meter.tooLarge?.charge"]],
    why: "Comparisons with a NaN size are false."
  },
  {
    file: "meter.ts",
    code: "m.peak + (phase < 0 ?",
    changes: [["<", "<="]],
    why: "At phase 0 both curves are at the peak."
  },
  {
    file: "meter.ts",
    code: "m.peak * phase + ((phase < 0 ?",
    changes: [["<", "<="]],
    why: "At phase 0 the area of both curves is 0."
  },
  {
    file: "meter.ts",
    code: "const isFlat = (m: Meter)",
    changes: [[">=", ">"]],
    why: "A shortcut: the curve of a share that is the whole limit is nowhere below the limit from phase 0 on."
  },
  {
    file: "meter.ts",
    code: "if (isFlat(m) && m.ramp === Infinity) return",
    changes: [["isFlat(m) && m.ramp === Infinity", "false"]],
    why: "A shortcut: the integral of a curve that is at the limit is the same."
  },
  {
    file: "meter.ts",
    code: "if (burst === undefined || shown === undefined ||",
    changes: [["||", "&&"]],
    why: "What headers have shown is undefined where the burst is, and only there."
  },
  {
    file: "meter.ts",
    code: "if (m.burst !== undefined && shown !== undefined) m.burst",
    changes: [["&&", "||"]],
    why: "What headers have shown is undefined where the burst is, and only there."
  },
  {
    file: "meter.ts",
    code: "if (elapsed <= 0) return",
    changes: [["<=", "<"]],
    why: "No time has passed, and nothing is refilled."
  },
  {
    file: "meter.ts",
    code: "if (m.peak < Infinity) {",
    changes: [
      ["<", "<="],
      ["m.peak < Infinity", "true"]
    ],
    why: "A bucket of an unknown limit is full, and its phase counts only from the next restart on."
  },
  {
    file: "meter.ts",
    code: "while (long - short >",
    changes: [[">", ">="]],
    why: "One step more or less of a bisection that ends within half a millisecond."
  },
  {
    file: "meter.ts",
    code: "if (refill(m, middle, maxPhase) < missing) short = middle",
    changes: [["<", "<="]],
    why: "One step more or less of a bisection that ends within half a millisecond."
  },
  {
    file: "meter.ts",
    code: "if (isGiven || used > charge)",
    changes: [[">", ">="]],
    why: "If usage equals the charge, nothing is given back."
  },
  {
    file: "heads.ts",
    code: 'head.phase = "ended"',
    changes: [['head.phase = "ended"', "nothing"]],
    why: "Its call leaves this queue in the next task, and what is not in a queue leaves it without effect."
  },
  {
    file: "oversize.ts",
    code: "grant!.at <= at) continue",
    changes: [["<=", "<"]],
    why: "A call that was sent in the very millisecond of a rejection may have been sent before or after it."
  },
  {
    file: "reservation.ts",
    code: "waited: waitedMillis === 0 ?",
    changes: [["waitedMillis === 0", "false"]],
    why: "A shortcut: a duration of 0 ms is zero."
  },
  {
    file: "reservation.ts",
    code: "roundedTo: Amounts.isAmount(roundedTo) && roundedTo >= 1",
    changes: [[">=", ">"]],
    why: "Figures in steps of 1 are rounded to 1 in either case."
  },
  {
    file: "line.ts",
    code: "this.blocked = undefined",
    changes: [["this.blocked = undefined", "nothing"]],
    why: "The decision that follows sets it, and a port plays that decision again for whoever joins before it is stored."
  },
  {
    file: "line.ts",
    code: "let free = gate?.inHand ?? Infinity",
    changes: [["gate?.inHand ?? Infinity", "gate?.inHand"]],
    why: "No number is below undefined either."
  },
  {
    file: "line.ts",
    code: "if (hold === this.arriving) this.arriving = undefined",
    changes: [["hold === this.arriving", "true"]],
    why: "While a call arrives, no other is admitted or dismissed."
  },
  {
    file: "ledger.ts",
    code: "lag === 0 && this.isCapped ?",
    changes: [
      ["&&", "||"],
      ["lag === 0 && this.isCapped", "true"]
    ],
    why: "Without a cap nothing is refused; with a store the decision refuses the same, only later."
  },
  {
    file: "ledger.ts",
    code: "if (this.isCapped) return this.line.ask(hold)",
    changes: [["this.isCapped", "true"]],
    why: "A line without a cap admits every call at once; passing it by only costs less."
  },
  {
    file: "ledger.ts",
    code: "if (port.lag > 0 && port.now() > this.lookedAt + lookMillis)",
    changes: [[">", ">="]],
    why: "Asking the state of this process changes nothing, and a status that is exactly as old as it may be may be renewed."
  },
  {
    file: "ledger.ts",
    code: "left: left ?? 0,",
    changes: [["left ?? 0", "left"]],
    why: "What is reached is a cap, so it is stated."
  },
  {
    file: "ledger.ts",
    code: "limit: limit ?? 0,",
    changes: [["limit ?? 0", "limit"]],
    why: "What is reached is a cap, so it is stated."
  },
  {
    file: "usage.ts",
    code: "inputTokens: inputTokens ?? 0, outputTokens: outputTokens ?? usual",
    changes: [["inputTokens ?? 0", "inputTokens"]],
    why: "Neither is the count of a prompt."
  },
  {
    file: "conversations.ts",
    code: "const asked = automatic === undefined ? (marks.at(-1)?.index ?? -1) : from",
    changes: [["marks.at(-1)?.index ?? -1", "marks.at(-1)?.index"]],
    why: "No index is at most NaN either."
  },
  {
    file: "race.ts",
    code: "duration === Infinity ? asleep",
    changes: [["duration === Infinity", "false"]],
    why: "A timeout that never comes only costs a timer."
  },
  {
    file: "admission.ts",
    code: "if (estimates.lessons === lessons && known === last) return undefined",
    changes: [["estimates.lessons === lessons && known === last", "false"]],
    why: "Where nothing was learned, the estimate is the same."
  }
]

/** Whether a reason explains a mutant. */
export const isOf = (reason: Reason, { code, file, is, was }: Mutant): boolean =>
  reason.file === file && code.includes(reason.code) && reason.changes.some(([from, to]) => from === was && to === is)

/** The reason why a mutant survives, if that is known. */
export const reasonOf = (mutant: Mutant): string | undefined => reasons.find((reason) => isOf(reason, mutant))?.why
