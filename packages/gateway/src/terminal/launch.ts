/** Begins an installed command. It imports nothing that an older Node cannot load. */

/** An installed command. */
export interface InstalledCommand {
  readonly name: string
  readonly version: string
  readonly load: () => Promise<unknown>
}

const wanted = [22, 19] as const

/** Loads a command if this version of Node can. Scripts ask for the version alone, which takes no command. */
export const launch = async ({ load, name, version }: InstalledCommand): Promise<void> => {
  const [major = 0, minor = 0] = process.versions.node.split(".").map(Number)
  if (major < wanted[0] || (major === wanted[0] && minor < wanted[1])) {
    console.error(`${name} needs Node ${wanted.join(".")} or newer; this is ${process.version}: https://nodejs.org`)
    process.exitCode = 1
  } else if (process.argv.length === 3 && /^(--version|-v)$/.test(process.argv[2]!)) {
    console.log(`${name} v${version}`)
  } else {
    await load()
  }
}
