/**
 * Writes the animation of the README and of the site: the incident with the SDK alone and with Floodgate as installed.
 *
 *     npm run example packages/docs/scripts/animation.ts
 */
import * as Effect from "effect/Effect"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { animationOf } from "../src/playground/animation.ts"
import { runs } from "../src/playground/runs.ts"
import { defaults, rivals } from "../src/playground/settings.ts"

const { floodgate, rival } = await Effect.runPromise(runs(defaults))
const lanes = [
  { title: rivals[defaults.rival], timeline: rival },
  { title: "With Floodgate, default settings", timeline: floodgate }
]
for (const theme of ["light", "dark"] as const) {
  const file = join(import.meta.dirname, `../../../docs/images/incident-${theme}.svg`)
  writeFileSync(file, animationOf(lanes, theme))
  console.log(`wrote ${file}`)
}
