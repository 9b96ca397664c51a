"""Answer files: where Windows looks for them, which settings exist in which pass, and what Setup does not take.

The stand-in knows the settings listed here and refuses every other, as Setup refuses what its schema does not have.
"""

import os
import xml.etree.ElementTree as ElementTree

NAMESPACE = "{urn:schemas-microsoft-com:unattend}"
PASSES = {"windowsPE", "offlineServicing", "specialize", "generalize", "auditSystem", "auditUser", "oobeSystem"}
REFUSED = 0x80220005
PATH_CHARACTERS = 259
COMMAND_LINE_CHARACTERS = 1024
COMPUTER_NAME_CHARACTERS = 15
DELETED = "*SENSITIVE*DATA*DELETED*"


class Refused(Exception):
    """Setup stops with this text in setuperr.log."""

    def __init__(self, what, code=REFUSED):
        super().__init__(f"{what} [0x{code:08X}]")
        self.code = code


# component -> setting -> passes it is valid in. A setting stands for all below it.
_PE = {"windowsPE"}
_LOCALES = ["InputLocale", "SystemLocale", "UILanguage", "UILanguageFallback", "UserLocale"]
SETTINGS = {
    "Microsoft-Windows-Setup": {name: _PE for name in (
        "DiskConfiguration", "ImageInstall", "UserData", "RunSynchronous", "RunAsynchronous", "DynamicUpdate", "ComplianceCheck",
        "Diagnostics", "EnableNetwork", "EnableFirewall", "UseConfigurationSet", "PageFile", "LogPath", "Restart", "Display")},
    "Microsoft-Windows-International-Core-WinPE":
        {name: _PE for name in _LOCALES + ["SetupUILanguage", "LayeredDriver"]},
    "Microsoft-Windows-PnpCustomizationsWinPE": {"DriverPaths": _PE},
    "Microsoft-Windows-PnpCustomizationsNonWinPE": {"DriverPaths": {"auditSystem", "offlineServicing"}},
    "Microsoft-Windows-International-Core": {name: {"oobeSystem", "specialize"} for name in _LOCALES},
    "Microsoft-Windows-Shell-Setup": {
        "ComputerName": {"offlineServicing", "specialize"},
        "ProductKey": {"specialize"},
        "CopyProfile": {"specialize"},
        "TimeZone": {"auditSystem", "oobeSystem", "specialize"},
        "AutoLogon": {"auditSystem", "oobeSystem", "specialize"},
        "DisableAutoDaylightTimeSet": {"auditSystem", "oobeSystem", "specialize"},
        "UserAccounts": {"auditSystem", "oobeSystem"},
        "OOBE": {"oobeSystem"},
        "FirstLogonCommands": {"oobeSystem"},
        "LogonCommands": {"oobeSystem"},
        "Display": {"auditSystem", "auditUser", "oobeSystem", "specialize"},
        **{name: {"auditUser", "generalize", "offlineServicing", "oobeSystem", "specialize"}
           for name in ("RegisteredOwner", "RegisteredOrganization", "OEMInformation")},
    },
    "Microsoft-Windows-Deployment": {
        "RunSynchronous": {"auditUser", "specialize"},
        "RunAsynchronous": {"auditUser", "specialize"},
        "Reseal": {"auditSystem", "auditUser", "oobeSystem"},
        "Generalize": {"auditUser"},
        "ExtendOSPartition": {"auditSystem", "generalize", "oobeSystem", "specialize"},
    },
    "Microsoft-Windows-PnpSysprep": {name: {"generalize"} for name in
                                     ("PersistAllDeviceInstalls", "DoNotCleanUpNonPresentDevices")},
    "Microsoft-Windows-Security-SPP": {"SkipRearm": {"generalize"}},
    "Microsoft-Windows-Security-SPP-UX": {"SkipAutoActivation": {"specialize"}},
    "Microsoft-Windows-UnattendedJoin": {"Identification": {"specialize"}},
    "Microsoft-Windows-LUA-Settings": {"EnableLUA": {"offlineServicing"}},
    "Microsoft-Windows-ServerManager-SvrMgrNc": {"DoNotOpenServerManagerAtLogon": {"generalize", "specialize"}},
    "Microsoft-Windows-SecureStartup-FilterDriver":
        {"PreventDeviceEncryption": {"auditSystem", "offlineServicing", "oobeSystem", "specialize"}},
    "Networking-MPSSVC-Svc": {name: {"specialize"} for name in
                              ("FirewallGroups", "DomainProfile_EnableFirewall", "PrivateProfile_EnableFirewall",
                               "PublicProfile_EnableFirewall")},
    "Security-Malware-Windows-Defender": {name: {"offlineServicing", "oobeSystem", "specialize"} for name in
                                          ("DisableAntiSpyware", "TamperProtection")},
}

# What may stand below some settings: Setup refuses an element it does not know there, too.
BELOW = {
    "Disk": {"DiskID", "WillWipeDisk", "CreatePartitions", "ModifyPartitions"},
    "CreatePartition": {"Order", "Type", "Size", "Extend"},
    "ModifyPartition": {"Order", "PartitionID", "Format", "Label", "Letter", "TypeID", "Active", "Extend"},
    "OSImage": {"InstallFrom", "InstallTo", "InstallToAvailablePartition", "WillShowUI"},
    "MetaData": {"Key", "Value"},
    "UserData": {"AcceptEula", "FullName", "Organization", "ProductKey"},
    "OOBE": {"HideEULAPage", "HideLocalAccountScreen", "HideOEMRegistrationScreen", "HideOnlineAccountScreens",
             "HideWirelessSetupInOOBE", "ProtectYourPC", "NetworkLocation", "SkipMachineOOBE", "SkipUserOOBE",
             "UnattendEnableRetailDemo", "VMModeOptimizations"},
    "LocalAccount": {"Name", "Group", "Password", "DisplayName", "Description"},
    "AutoLogon": {"Enabled", "Username", "Password", "LogonCount", "Domain"},
    "RunSynchronousCommand": {"Order", "Path", "Description", "Credentials", "WillReboot"},
    "SynchronousCommand": {"Order", "CommandLine", "Description", "RequiresUserInput"},
}


def name_of(element):
    return element.tag.replace(NAMESPACE, "")


def text_of(element, path, default=None):
    found = element.find("/".join(NAMESPACE + part for part in path.split("/")))
    return (found.text or "").strip() if found is not None else default


def all_of(element, path):
    return element.findall("/".join(NAMESPACE + part for part in path.split("/")))


class AnswerFile:
    def __init__(self, path, architecture="amd64"):
        self.path = path
        self.architecture = architecture
        try:
            self.tree = ElementTree.parse(path)
        except (ElementTree.ParseError, OSError, UnicodeError) as error:
            raise Refused(f"The unattend answer file {path} cannot be read: {error}") from None
        self.root = self.tree.getroot()
        if self.root.tag != NAMESPACE + "unattend":
            raise Refused(f"{path}: the root element is {self.root.tag}, not unattend of urn:schemas-microsoft-com:unattend")

    def settings(self, name):
        return [settings for settings in self.root if name_of(settings) == "settings" and settings.get("pass") == name]

    def was_processed(self, name):
        return any(settings.get("wasPassProcessed") == "true" for settings in self.settings(name))

    def has(self, name):
        """Whether the file has something for a pass that was not used before."""
        return bool(self.settings(name)) and not self.was_processed(name)

    def components(self, name):
        return [component for settings in self.settings(name) if settings.get("wasPassProcessed") != "true"
                for component in settings if component.get("processorArchitecture") == self.architecture]

    def component(self, name, component):
        found = [one for one in self.components(name) if one.get("name") == component]
        return found[0] if found else None

    def check(self):
        """Refuses the whole file for one thing that is wrong, as Setup does."""
        for settings in self.root:
            if name_of(settings) in ("servicing", "offlineImage"):
                continue
            if name_of(settings) != "settings" or settings.get("pass") not in PASSES:
                raise Refused(f"{self.path}: <{name_of(settings)} pass={settings.get('pass')!r}> is no configuration pass")
            for component in settings:
                self._check_component(settings.get("pass"), component)

    def _check_component(self, in_pass, component):
        name = component.get("name")
        if component.get("publicKeyToken") != "31bf3856ad364e35" or component.get("versionScope") != "nonSxS":
            raise Refused(f"The component {name} of pass [{in_pass}] has no valid identity")
        if name not in SETTINGS:
            raise Refused(f"The component {name} of pass [{in_pass}] is unknown")
        for setting in component:
            passes = SETTINGS[name].get(name_of(setting))
            if passes is None:
                raise Refused(f"The setting <{name_of(setting)}> of component [{name}] does not exist")
            if in_pass not in passes:
                raise Refused(f"The setting <{name_of(setting)}> of component [{name}] is not valid in pass [{in_pass}]")
            for element in setting.iter():
                self._check_element(name, element)

    def _check_element(self, component, element):
        name = name_of(element)
        known = BELOW.get(name)
        if known is not None:
            for child in element:
                if name_of(child) not in known:
                    raise Refused(f"The setting <{name_of(child)}> below <{name}> of component [{component}] does not exist")
        if name == "ComputerName" and len((element.text or "").strip()) > COMPUTER_NAME_CHARACTERS:
            raise Refused(f"The computer name {element.text!r} is longer than {COMPUTER_NAME_CHARACTERS} characters")
        if name == "RunSynchronousCommand" and len(text_of(element, "Path", "")) > PATH_CHARACTERS:
            raise Refused(f"<Path> of a <RunSynchronousCommand> is longer than {PATH_CHARACTERS} characters")
        if name == "SynchronousCommand" and len(text_of(element, "CommandLine", "")) > COMMAND_LINE_CHARACTERS:
            raise Refused(f"<CommandLine> of a <SynchronousCommand> is longer than {COMMAND_LINE_CHARACTERS} characters")
        if name == "CreatePartition" and text_of(element, "Size") and text_of(element, "Extend", "").lower() == "true":
            raise Refused("<Size> and <Extend> are both given for one partition")
        if name == "OSImage" and all_of(element, "InstallTo") and all_of(element, "InstallToAvailablePartition"):
            raise Refused("<InstallTo> and <InstallToAvailablePartition> exclude each other")

    def mark_processed(self, name):
        """As Setup does in its cached copy: the pass is not run again, and its secrets are gone."""
        for settings in self.settings(name):
            settings.set("wasPassProcessed", "true")
            for element in settings.iter():
                if name_of(element) in ("Password", "AdministratorPassword"):
                    for value in all_of(element, "Value"):
                        value.text = DELETED
                if name_of(element) == "ProductKey":
                    for value in all_of(element, "Key"):
                        value.text = DELETED

    def save(self, path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        ElementTree.register_namespace("", NAMESPACE[1:-1])
        ElementTree.register_namespace("wcm", "http://schemas.microsoft.com/WMIConfig/2002/State")
        self.tree.write(path, encoding="utf-8", xml_declaration=True)


def entry(folder, name):
    """A name of a folder, compared as Windows compares."""
    try:
        for have in os.listdir(folder):
            if have.lower() == name.lower():
                return os.path.join(folder, have)
    except OSError:
        pass
    return None


def below(folder, path):
    """A path below a folder, compared as Windows compares."""
    for part in [part for part in path.replace("\\", "/").split("/") if part]:
        folder = entry(folder, part)
        if folder is None:
            return None
    return folder


def places(in_pass, machine, media, windows=None, setup_drive=None):
    """Places of the documented search order that hold a file: (rule, path). `media`: list of drives, each with letter, root
    and whether it can be written to. `machine`: its registry, or None in Windows PE."""
    found = []
    both = ("Unattend.xml", "Autounattend.xml")

    def look(rule, folder, names):
        for name in names:
            path = below(folder, name) if folder else None
            if path and os.path.isfile(path):
                found.append((rule, path))

    if machine is not None:
        named = machine.get("HKLM\\SYSTEM\\Setup", "UnattendFile")
        if named:
            path = below(windows, named.split(":", 1)[-1])
            if path:
                found.append((1, path))
    if windows:
        look(2, below(windows, "Windows/Panther/Unattend"), both)
        look(3, below(windows, "Windows/Panther"), ("Unattend.xml",))
    for rule, writable in ((4, True), (5, False)):
        for drive in sorted(media, key=lambda drive: drive.letter):
            if drive.writable == writable:
                look(rule, drive.root, ("Autounattend.xml",))
    if in_pass in ("windowsPE", "offlineServicing"):
        if setup_drive:
            look(6, below(setup_drive, "sources"), ("Autounattend.xml",))
    elif windows:
        look(6, below(windows, "Windows/System32/Sysprep"), ("Unattend.xml",))
    if windows:
        look(7, windows, both)
    if setup_drive:
        look(8, setup_drive, both)
    return found


def find(in_pass, machine, media, windows=None, setup_drive=None):
    """The answer file of a pass: the first place with a file that has something for it."""
    for rule, path in places(in_pass, machine, media, windows, setup_drive):
        file = AnswerFile(path)
        if file.has(in_pass):
            return rule, file
    return None
