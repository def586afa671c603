package capture

// Version is that of the functions.
const Version = version
