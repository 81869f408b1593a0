import * as Engine from "./weather/engine.ts"
import * as Random from "./weather/random.ts"
import { cells } from "./weather/cells.ts"
import * as M from "./weather/admission.ts"
import * as Law from "../src/admission/law.ts"
import * as Meter from "../src/admission/meter.ts"
const [name, variant, seed, every, from, until] = process.argv.slice(2)
const s: any =
  name === "random"
    ? Random.make(Number(seed))
    : (cells as any).find((c: any) => c.name.includes(name)).weathers[Number(variant)]
let last = -1e9
const c: any = {}
const pools: any[] = []
const orig = Law as any
const make = (setting: any) => {
  const law: any = M.make(setting.limits, setting.dimensions, 0, { share: setting.share })
  const tick = (now: number) => {
    if (now - last < Number(every) || now < Number(from) || now > Number(until)) return
    last = now
    const p = law.pool
    console.log(
      (now / 1000).toFixed(2),
      "sent",
      p.sent,
      "fl",
      p.inFlight,
      "win",
      p.window.size,
      "p",
      p.random.toFixed(4),
      "open",
      p.opening?.allowed,
      "gate",
      p.gate.misses,
      p.gate.reason,
      (p.gate.until - now).toFixed(0),
      JSON.stringify(c),
      "rejMs",
      p.rejectMillis.toFixed(0),
      "ovl",
      p.randomOverload.toFixed(3),
      p.overloadMillis.toFixed(0),
      p.meters
        .map(
          (m: any) =>
            `${m.dimension} rate ${(Meter.rate(m) * 60000).toPrecision(4)} lim ${(m.limit * 60000).toPrecision(4)} lvl ${m.level.toPrecision(3)} b ${Meter.burst(m).toPrecision(3)} ph ${m.phase.toFixed(2)} T ${m.period.toFixed(0)} res ${m.reserve.toPrecision(3)} mean ${m.mean.toPrecision(3)}`
        )
        .join(" | ")
    )
    for (const k in c) delete c[k]
  }
  return {
    ...law,
    ask: (ch: any, n: number) => {
      tick(n)
      return law.ask(ch, n)
    },
    rejected: (t: any, n: number, r: any) => {
      const v = law.rejected(t, n, r)
      const k = (r.isRandom ? "R" : "L") + v
      c[k] = (c[k] ?? 0) + 1
      return v
    },
    overloaded: (t: any, n: number, r: any) => {
      const v = law.overloaded(t, n, r)
      c["O" + v] = (c["O" + v] ?? 0) + 1
      return v
    }
  }
}
console.log(JSON.stringify(s).slice(0, 1500))
const r = Engine.run(s, Number(seed), make as any)
console.log(JSON.stringify(r))
