/** Law 17 of the queue alone: being many gives nothing. And laws 3 and 8, with jobs and callers that come and go. */
import { assert, describe, it } from "@effect/vitest"
import { type CallOwner, FairQueue, Queued } from "../../src/admission/fairQueue.ts"
import { countFlows } from "../support/queueFlows.ts"
import { mulberry } from "../support/random.ts"
import { sized } from "../support/size.ts"

const call = (owner: Partial<CallOwner>, cost = 1): Queued =>
  new Queued({ agent: "a", weight: 1, priority: 0, ...owner }, cost)

/** Serves calls while each who is served asks again, and returns what each has got by name. */
const contest = (
  busy: Readonly<Record<string, ReadonlyArray<() => Queued>>>,
  services: number,
  used: (name: string) => number = () => 1
): Readonly<Record<string, number>> => {
  const queue = new FairQueue<Queued>()
  const got: Record<string, number> = {}
  const asks = new Map<Queued, readonly [string, () => Queued]>()
  const ask = (name: string, make: () => Queued): void => {
    const entry = make()
    asks.set(entry, [name, make])
    queue.push(entry)
  }
  for (const [name, makes] of Object.entries(busy)) for (const make of makes) ask(name, make)
  for (let i = 0; i < services; i++) {
    const entry = queue.peek()!
    const [name, make] = asks.get(entry)!
    asks.delete(entry)
    // It asks first, so that it always waits.
    ask(name, make)
    queue.serve(entry)
    queue.correct(entry, used(name))
    got[name] = (got[name] ?? 0) + entry.cost * used(name)
  }
  return got
}

const many = <A>(count: number, one: (index: number) => A): Array<A> => Array.from({ length: count }, (_, i) => one(i))

describe("law 17, being many gives nothing", () => {
  it("to a caller with a thousand invented jobs beside one with a single job", () => {
    let invented = 0
    const got = contest(
      {
        many: many(1_000, () => () => call({ caller: "many", job: `${invented++}` })),
        one: [() => call({ caller: "one", job: "only" })]
      },
      2_000
    )
    assert.closeTo(got["many"]!, got["one"]!, 2)
  })

  it("to a caller who names another's job, or an agent like a job, or nothing as a job", () => {
    const got = contest(
      {
        one: [() => call({ caller: "one", job: "report", agent: "a" })],
        thief: many(
          50,
          (i) => () => call({ caller: "thief", job: ["report", "a", "undefined", ""][i % 4]!, agent: `${i}` })
        ),
        nobody: [() => call({ agent: "one" })],
        "called undefined": [() => call({ caller: "undefined" })]
      },
      4_000
    )
    for (const each of Object.values(got)) assert.closeTo(each, 1_000, 2)
  })

  it("to a job of 48 agents beside a job of one, and an agent without a job", () => {
    const got = contest(
      {
        fanOut: many(48, (i) => () => call({ job: "fan-out", agent: `${i}` })),
        one: [() => call({ job: "one" })],
        alone: [() => call({ agent: "fan-out" })]
      },
      3_000
    )
    for (const each of Object.values(got)) assert.closeTo(each, 1_000, 2)
  })

  it("to a job whose calls use more than they were estimated at, or less", () => {
    const parts: Record<string, number> = { more: 4, exact: 1, less: 0.25 }
    const makes = (job: string) => many(5, (i) => () => call({ job, agent: `${i}` }))
    const got = contest(
      { more: makes("more"), exact: makes("exact"), less: makes("less") },
      6_000,
      (name) => parts[name]!
    )
    for (const each of Object.values(got)) assert.closeTo(each / got["exact"]!, 1, 0.02)
  })

  it("shares by the weights of jobs, and within each by those of its agents", () => {
    const got = contest(
      {
        "light a": [() => call({ job: "light" })],
        "light b": [() => call({ job: "light", agent: "b", weight: 3 })],
        heavy: many(3, (i) => () => call({ job: "heavy", jobWeight: 4, agent: `${i}`, weight: 10 }))
      },
      2_000
    )
    assert.closeTo(got["heavy"]!, 1_600, 5)
    assert.closeTo(got["light a"]!, 100, 5)
    assert.closeTo(got["light b"]!, 300, 5)
  })

  it("charges each call by its own weight, where those of a job differ", () => {
    let weight = 1
    const got = contest(
      {
        changing: [() => call({ job: "changing", jobWeight: (weight = 4 - weight) })],
        steady: [() => call({ job: "steady" })]
      },
      4_000
    )
    // By turns a third and a whole of the cost.
    assert.closeTo(got["changing"]! / got["steady"]!, 1.5, 0.01)
  })
})

describe("jobs and callers that come and go", () => {
  it("starve nobody, and are forgotten", () => {
    const queue = new FairQueue<Queued>()
    const random = mulberry(7)
    const waits = many(40, (i) => call({ caller: `${i % 4}`, job: `${i % 20}`, agent: `${i}` }, 10))
    for (const entry of waits) queue.push(entry)
    const left = new Set(waits)
    let services = 0
    for (let i = 0; left.size > 0; i++) {
      queue.push(call({ caller: `${i % 5}`, job: `new ${i}`, agent: `${i}` }, 0.1 + random()))
      for (let n = random() < 0.5 ? 1 : 2; n > 0; n--) {
        const next = queue.peek()!
        queue.serve(next)
        queue.correct(next, 2 * random())
        left.delete(next)
        services++
      }
      assert.isBelow(i, sized(40_000, 400_000))
    }
    assert.isBelow(services, 5_000)
  })

  it("take bounded memory: endless names of callers, jobs and agents", () => {
    const queue = new FairQueue<Queued>()
    const patient = call({ caller: "patient", job: "patient" }, 1e-6)
    queue.push(patient)
    let max = 0
    const names: ReadonlyArray<(i: number) => Partial<CallOwner>> = [
      (i) => ({ caller: `${i}`, job: `${i}`, agent: `${i}` }),
      (i) => ({ caller: "one", job: `${i}` }),
      (i) => ({ caller: "one", job: "one", agent: `${i}` }),
      (i) => ({ job: `${i}`, agent: `${i}` })
    ]
    for (const nameOf of names) {
      for (let i = 0; i < sized(2_000, 20_000); i++) {
        queue.push(call(nameOf(i), 1e-3))
        // Somebody always waits, so nothing is forgotten as a whole.
        while (queue.size > 1) queue.serve(queue.peek()!)
        if (queue.peek()!.caller !== "patient") queue.push(call({ caller: "patient", job: "patient" }, 1e-3))
        // Those that wait, or are ahead of others, stay.
        if (i % 50 === 0) max = Math.max(max, countFlows(queue["levels"].get(0)!))
      }
    }
    assert.isAtMost(max, 1_100)
  })

  it("do not lose an active job when others are forgotten", () => {
    const queue = new FairQueue<Queued>()
    queue.push(call({ job: "waits" }))
    for (let i = 0; i < 1_500; i++) {
      queue.push(call({ job: "active", agent: `${i % 2}` }))
      const entry = call({ job: `${i}` }, 1e-3)
      queue.push(entry)
      queue.serve(entry)
    }
    const [level] = queue["levels"].values()
    const active = [...queue.inOrder()].filter(({ job }) => job === "active")
    assert.strictEqual(new Set(active.map(({ flow }) => flow!.group)).size, 1)
    assert.strictEqual(active[0]!.flow!.group.parent, level!.find(active[0]!)!.group.parent)
  })

  it("know where a newcomer stands: as if it were pushed", () => {
    for (let seed = 1; seed <= sized(60, 600); seed++) {
      const random = mulberry(seed)
      const pick = <A>(...of: ReadonlyArray<A>): A => of[Math.floor(random() * of.length)]!
      const some = (): Queued => {
        const owner = { agent: pick("a", "b", "c"), job: pick(undefined, "j", "k"), caller: pick(undefined, "x", "y") }
        return call(
          { ...owner, weight: pick(1, 2), jobWeight: pick(1, 4), priority: pick(0, 0, 1) },
          pick(1, 2, 1 / 64)
        )
      }
      const queue = new FairQueue<Queued>()
      for (let i = 0; i < 30; i++) {
        if (random() < 0.6) queue.push(some(), random() < 0.1)
        else if (queue.size > 0) queue.serve(queue.peek()!)
      }
      const first = random() < 0.3
      const newcomer = some()
      const before = [...queue.inOrder({ ...newcomer, cost: newcomer.cost, first })]
      queue.push(newcomer, first)
      const order = [...queue.inOrder()]
      assert.deepStrictEqual(
        before.map((entry) => order.indexOf(entry)),
        order.slice(0, order.indexOf(newcomer)).map((_, i) => i),
        `seed ${seed}`
      )
    }
  })
})
