/** Laws by name: the rivals, and modules that export `make`. */
import { basename, resolve } from "node:path"
import { pathToFileURL } from "node:url"
import type { Dimension, ToldLimits } from "./amounts.ts"
import type { Law, MakeLaw } from "./engine.ts"
import { rivals } from "./rivals.ts"

/** The exports of a law's module. */
export interface LawModule {
  readonly make: (
    limits: ToldLimits,
    dimensions: ReadonlyArray<Dimension>,
    now: number,
    options: { readonly share: number }
  ) => Law
}

/** Loads a rival by name, or a module by its path, which ends with `.ts` or `.js`. */
export const load = async (law: string): Promise<MakeLaw> => {
  if (!/\.[mc]?[jt]s$/.test(law)) {
    const make = rivals[law]
    if (make === undefined) throw new Error(`unknown law "${law}": known are ${Object.keys(rivals).join(", ")}`)
    return make
  }
  const module = (await import(pathToFileURL(resolve(law)).href)) as Partial<LawModule>
  const { make } = module
  if (typeof make !== "function") throw new Error(`${law} exports no function "make"`)
  return ({ dimensions, limits, share }) => make(limits, dimensions, 0, { share })
}

export const titleOf = (law: string): string =>
  /\.[mc]?[jt]s$/.test(law) ? basename(law).replace(/\.[^.]+$/, "") : law
