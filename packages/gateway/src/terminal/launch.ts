/** Begins an installed command. It imports nothing that an older Node cannot load. */
import { withSmallYoungSpace } from "./youngSpace.ts"

const wanted = [22, 19] as const

/** Loads a command if this version of Node can. A service, which runs for a long time, keeps little memory. */
export const launch = async (
  name: string,
  load: () => Promise<unknown>,
  { isService }: { readonly isService: boolean }
): Promise<void> => {
  const [major = 0, minor = 0] = process.versions.node.split(".").map(Number)
  if (major > wanted[0] || (major === wanted[0] && minor >= wanted[1])) {
    await (isService ? withSmallYoungSpace(load) : load())
  } else {
    console.error(`${name} needs Node ${wanted.join(".")} or newer; this is ${process.version}: https://nodejs.org`)
    process.exitCode = 1
  }
}
