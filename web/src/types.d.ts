/** A device that makes plans. */
export interface Device {
    name: string;
    /** `webgpu`, or `cpu` for the CPU backend in wasm. */
    backend: string;
    kind: string;
    software: boolean;
    /** Why it is never chosen. */
    unusableBecause: string | null;
}

/** Options of a plan. The preset sets each option that is left out. */
export interface PlanOptions {
    /** One of `presets()`. */
    preset?: string;
    seed?: number;
    starts?: number;
    iterations?: number;
    allowDuplicates?: boolean;
    maxReplicasPerExpert?: number;
}

/** How far a plan may move away from the one before it. */
export interface MoveLimits {
    /** The most slots that may move for balance, in all layers together. */
    maxMoves?: number;
    maxMovesPerLayer?: number;
    /** The most rounds that the moves of a layer take, in each of which a GPU deals with one other. */
    maxRoundsPerLayer?: number;
    /** The gain that moving all slots of a layer must bring, in millionths of the mean GPU. */
    minGainPpm?: number;
    /** Layers whose balancedness is at least this many millionths are left untouched. */
    skipIfBalancedPpm?: number;
}

/** How even a plan is. Loads are in the units of the loads it was made from. */
export interface Quality {
    /** Mean over heaviest GPU, all layers: 1 is even. */
    balancedness: number;
    maxOverMean: number;
    /** How far the heaviest GPU is above the lower bound, as a part of the bound: mean of layers, and worst. */
    meanGap: number;
    worstGap: number;
    sameGpuDuplicates: number;
    layers: LayerQuality[];
}

export interface LayerQuality {
    maxGpuLoad: number;
    meanGpuLoad: number;
    /** No plan's heaviest GPU is lighter. */
    lowerBound: number;
    gap: number | null;
    sameGpuDuplicates: number;
}

/** Changes from one plan to the next. */
export interface Moves {
    changedSlots: number;
    /** Slots whose GPU receives an expert that it did not hold: the transfers. */
    received: number;
    repairs: number;
    slots: number;
}
